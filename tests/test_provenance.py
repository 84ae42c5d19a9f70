"""Of which picture a result was made: told by all that is written, and little is read of what is planted."""

import errno
import hashlib
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from broken_files import png_bomb
from drawing import draw_face, encode
from maskdrop.config import DecodeSettings, Settings
from maskdrop.results.metadata import exif_for, read_metadata, srgb_profile
from maskdrop.results.provenance import provenance, source_in, source_of
from maskdrop.results.render import Renderer
from maskdrop.ticket import Facts, Identity, Save, Ticket
from maskdrop.topology.slots import OwnSlots

SIDE = 64
LONGEST_EXIF = 60_000
MEGABYTE = 2**20


def picture_with(description: str) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = description
    return encode(draw_face(1, 300, 200), "PNG", exif=exif, icc_profile=srgb_profile())


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_every_result_tells_it_with_as_much_metadata_as_it_may_have(form: str, tmp_path: Path) -> None:
    values = {"outputs": ["face", "model", "cutout", "labels", "overlay"], "format": form}
    folders = {"inbox": tmp_path / "in", "outbox": tmp_path / "out"}
    settings = Settings.model_validate({"folders": folders, "save": values})

    def exif_of(content: bytes) -> bytes:
        return exif_for(read_metadata(content, DecodeSettings()), settings.save.metadata, "0" * 64)

    more = LONGEST_EXIF - len(exif_of(picture_with("x" * 1000)))
    content = picture_with("x" * (1000 + more))
    assert len(exif_of(content)) == LONGEST_EXIF
    sha256, slots = hashlib.sha256(content).hexdigest(), OwnSlots.for_one(SIDE)
    slots.pictures[0] = 128
    slots.labels[0] = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 19
    task = Save(Ticket(0, "a.png", Identity(0, 0, len(content), 0)), 0, Facts(sha256, 300, 200))
    results = Renderer(settings, slots).render(task, lambda: content)
    assert len(results) == 5
    for result in results:
        path = tmp_path / f"a{result.tail}"
        path.write_bytes(result.content)
        assert source_of(path) == sha256, result.tail
        assert path.stat().st_size > LONGEST_EXIF or "labels" in result.tail


class Counted(io.FileIO):
    """A file that counts what is read of it."""

    count = 0

    def readinto(self, buffer: Any, /) -> int | None:
        read = super().readinto(buffer)
        self.count += read or 0
        return read

    def readall(self) -> bytes:
        content = super().readall()
        self.count += len(content)
        return content


class Failing(io.RawIOBase):
    """A file on a disk that fails."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.json"])
def test_that_a_file_cant_be_read_says_nothing_of_what_it_is(name: str) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        source_in(io.BufferedReader(Failing()), name)


PLANTED = {
    "a WebP of one endless chunk": b"RIFF\xff\xff\xff\x7fWEBPVP8 \xf0\xff\xff\x7f",
    "a WebP of empty chunks": b"RIFF\xff\xff\xff\x7fWEBP",
    "a WebP with endless EXIF": b"RIFF\xff\xff\xff\x7fWEBPEXIF\xf0\xff\xff\x01",
    "a JPEG with nothing but junk": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01",
    "a JPEG of endless comments": b"\xff\xd8\xff" + b"\xfe\xff\xff".ljust(2**16, b"\xff") * 30,
    "a PNG with an endless text": png_bomb(8, 8)[:33] + struct.pack(">I", 2**25) + b"tEXt",
}


@pytest.mark.parametrize("content", PLANTED.values(), ids=PLANTED.keys())
def test_little_is_read_of_what_is_planted(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with path.open("r+b") as planted:
        planted.truncate(64 * MEGABYTE)
    with Counted(path) as raw, io.BufferedReader(raw) as file:
        assert source_in(file, path.name) is None
        assert raw.count < MEGABYTE / 4


def test_a_webp_of_odd_chunks_tells_it_too() -> None:
    odd = 0
    for seed in range(12):
        for options in ({"lossless": True}, {"quality": 95}):
            image = draw_face(seed, 40 + seed, 50).convert("RGBA")
            image.putalpha(image.convert("L"))
            buffer, place = io.BytesIO(), 12
            image.save(buffer, "WEBP", exif=provenance("ab" * 32).tobytes(), **options)
            content = buffer.getvalue()
            while place < len(content):
                kind, size = struct.unpack_from("<4sI", content, place)
                odd += size % 2 and kind != b"EXIF"
                place += 8 + size + size % 2
            assert source_in(io.BytesIO(content), "a.webp") == "ab" * 32
    assert odd
