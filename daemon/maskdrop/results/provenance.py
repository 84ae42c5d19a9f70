"""Which picture a result was made from: it holds the picture's SHA-256 (EXIF DocumentName; JSON `sha256`)."""

import io
import struct
from pathlib import Path
from typing import IO

from PIL import Image

from maskdrop import __version__, foreign_json
from maskdrop.beneath import open_folder, open_regular
from maskdrop.config import SIDECAR_ENDING

_DOCUMENT_NAME = 0x010D  # EXIF 2.32 / TIFF 6.0: the document this image was made from
_SOFTWARE = 0x0131  # TIFF 6.0
_LONGEST_SIDECAR = 2**18

_LONGEST_HEAD = 2**17
"""Bytes that hold everything before the pixels of a JPEG or PNG result: a segment of EXIF, 65,533 bytes at
most (ITU T.81, B.1.1.4), an sRGB profile, a palette."""

_RIFF_HEAD = 12
_LONGEST_EXIF = 2**16
_MOST_CHUNKS = 8
"""A WebP result has five at most (RFC 9649, 2.7): VP8X, ICCP, ALPH, VP8 or VP8L, EXIF."""


def provenance(sha256: str) -> Image.Exif:
    """EXIF that says which file a result was made from, and by what."""
    exif = Image.Exif()
    exif[_DOCUMENT_NAME] = f"sha256:{sha256}"
    exif[_SOFTWARE] = f"maskdrop {__version__}"
    return exif


def source_of(result: Path) -> str | None:
    """The SHA-256 of the picture that a result was made from, or None where it doesn't say."""
    try:
        with open_folder(result.parent) as folder:
            return source_at(folder, result.name)
    except OSError:
        return None


def source_at(folder: int, name: str) -> str | None:
    """The SHA-256 of the picture that the result of this name in a folder was made from; None where it
    doesn't say. Reads the file's headers only, and no more than a result's may take: the file may be
    anybody's, and made to be costly to read.
    """
    try:
        with open_regular(folder, name) as file:
            return source_in(file, name)
    except OSError:
        return None


class _Reads:
    """Reads of a file that note their own errors, to tell them from errors over what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, most: int) -> bytes:
        try:
            return self._file.read(most)
        except OSError as error:
            self.error = error
            raise

    def seek(self, place: int) -> int:
        return self._file.seek(place)


def source_in(file: IO[bytes], name: str) -> str | None:
    """The SHA-256 of the picture that an open file of this name was made from; None where it doesn't say.

    Raises:
        OSError: the file can't be read.
    """
    reads = _Reads(file)
    try:
        if name.endswith(SIDECAR_ENDING):
            told = foreign_json.loads(reads.read(_LONGEST_SIDECAR))
            return str(told["sha256"]) if "maskdrop" in told else None
        exif = Image.Exif()
        exif.load(_exif_of(reads))
        text = str(exif.get(_DOCUMENT_NAME, ""))
    except Exception:  # whatever lies there, it is not our result
        if reads.error is not None:
            raise reads.error from None
        return None
    return text.removeprefix("sha256:") if text.startswith("sha256:") else None


def _exif_of(file: _Reads) -> bytes:
    """The EXIF data of a result; empty, or any exception, where the file is no result."""
    head = file.read(_RIFF_HEAD)
    if head.startswith(b"RIFF"):  # Pillow would read a WebP to its end
        return _exif_of_webp(file)
    with Image.open(io.BytesIO(head + file.read(_LONGEST_HEAD)), formats=("JPEG", "PNG")) as image:
        found: bytes = image.info.get("exif", b"")
    return found


def _exif_of_webp(file: _Reads) -> bytes:
    """The EXIF chunk, which comes after the pixels (RFC 9649, 2.7.1.5); these are skipped."""
    place = _RIFF_HEAD
    for _ in range(_MOST_CHUNKS):
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind == b"EXIF":
            return file.read(size) if size <= _LONGEST_EXIF else b""
        place = file.seek(place + 8 + size + size % 2)
    return b""
