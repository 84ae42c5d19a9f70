"""What decoding calls broken, and what it doesn't."""

import contextlib
import io
import os
import resource
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from drawing import draw_face, face_bytes
from maskdrop.config import DecodeSettings
from maskdrop.decoding import BrokenPicture, decode, refuse_want_of_memory, set_up_decoding
from maskdrop.results.metadata import exif_for, read_metadata


def test_a_process_that_may_open_no_more_files_says_nothing_of_the_picture() -> None:
    content = face_bytes(1)
    assert decode(content, DecodeSettings()).size
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(opened) + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.dup(0))
        with pytest.raises(OSError, match="Too many open files"):
            decode(content, DecodeSettings())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in opened:
            os.close(descriptor)
    assert decode(content, DecodeSettings()).size


@pytest.mark.parametrize(
    "error",
    [
        OSError("out of memory when reading image file"),
        OSError("decoder error -9"),
        OSError("encoder error -9"),
        RuntimeError("Failed to decode frame 0: Out of memory"),
        ValueError("encoding error 1"),
        MemoryError(),
    ],
)
def test_want_of_memory_is_known_however_a_codec_tells_it(error: Exception) -> None:
    with pytest.raises(MemoryError):
        refuse_want_of_memory(error)


@pytest.mark.parametrize("told", ["decoder error -2", "encoding error 10", "encoding error 5", "truncated"])
def test_other_errors_are_not_want_of_memory(told: str) -> None:
    refuse_want_of_memory(OSError(told))


def grey_tiff(bits: int, meaning: int, pixels: bytes) -> bytes:
    """An uncompressed TIFF of two pixels (TIFF 6.0)."""
    values = {256: 2, 257: 1, 258: bits, 259: 1, 262: meaning, 273: 8, 277: 1, 278: 1, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    data = pixels.ljust(len(pixels) + len(pixels) % 2, b"\0")
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    return head + data + struct.pack("<H", len(values)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("values", "greys"),
    [([0.0, 100.0, 255.0, 300.0], [0, 100, 255, 255]), ([float("nan"), 0.5, 1.0], [0, 127, 255])],
)
def test_tiffs_of_floats_go_to_1_or_to_255_and_what_is_no_number_is_black(
    values: list[float], greys: list[int]
) -> None:
    out = io.BytesIO()
    Image.fromarray(np.asarray([values], dtype=np.float32)).save(out, "TIFF")
    assert np.asarray(decode(out.getvalue(), DecodeSettings()))[0, :, 0].tolist() == greys


def with_tags(whole: bytes, changed: dict[int, int]) -> bytes:
    """A little-endian TIFF with other values of these tags; where tiles are among them, without strips."""
    (at,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, at)
    tags = {}
    for entry in range(count):
        tag, kind, number = struct.unpack_from("<HHI", whole, at + 2 + 12 * entry)
        tags[tag] = (
            struct.pack("<HHI", tag, kind, number) + whole[at + 10 + 12 * entry : at + 14 + 12 * entry]
        )
    if 322 in changed:
        del tags[273], tags[278], tags[279]
    tags |= {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in changed.items()}
    entries = b"".join(tags[tag] for tag in sorted(tags))
    content = whole[:4] + struct.pack("<I", len(whole)) + whole[8:]
    return content + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    "damage",
    [
        {322: 64, 323: 2**28, 324: 8, 325: 9},
        {322: 64, 323: 2**32 - 1, 324: 8, 325: 9},
        {278: 2**31},
        {322: 2**15, 323: 2**15, 324: 8, 325: 9},
    ],
    ids=["tile length", "longest tile", "rows a strip", "tile"],
)
def test_a_tiff_whose_parts_are_larger_than_any_picture_is_broken_and_no_want_of_memory(
    damage: dict[int, int],
) -> None:
    out = io.BytesIO()
    draw_face(1, 64, 64).convert("L").save(out, "TIFF", compression="tiff_lzw")
    content = with_tags(out.getvalue(), damage)
    with pytest.raises(BrokenPicture, match=r"its tiles or strips are larger than decode\.max_pixels"):
        decode(content, DecodeSettings())


def test_a_ycbcr_tiff_of_endless_strips_is_broken_and_no_want_of_memory() -> None:
    """Such a strip is read whole, and is not cut to the picture's rows."""
    out = io.BytesIO()
    draw_face(1, 64, 64).convert("YCbCr").save(out, "TIFF", compression="tiff_lzw")
    content = with_tags(out.getvalue(), {278: 100_000_000})
    with pytest.raises(BrokenPicture, match=r"its tiles or strips are larger than decode\.max_pixels"):
        decode(content, DecodeSettings())


def test_a_png_may_have_long_texts_that_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a profile, a history of editing or a workflow is in it."""
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", PngImagePlugin.MAX_TEXT_CHUNK)  # to be put back
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    set_up_decoding()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000, zip=True)
    info.add_text("workflow", "y" * 3_000_000, zip=True)
    out = io.BytesIO()
    draw_face(1, 64, 64).save(out, "PNG", pnginfo=info, icc_profile=bytes(3_000_000))
    assert decode(out.getvalue(), DecodeSettings()).size == (64, 64)


@pytest.mark.parametrize("rows", [65, 2**31 - 1, 2**32 - 1])
def test_strips_of_more_rows_than_the_picture_has_are_not_what_is_wrong_with_it(rows: int) -> None:
    out = io.BytesIO()
    draw_face(1, 64, 64).convert("L").save(out, "TIFF", compression="tiff_lzw")
    whole = with_tags(out.getvalue(), {278: rows})
    settings = DecodeSettings(max_pixels=64 * 64)
    assert decode(whole, settings).size == (64, 64)
    with pytest.raises(BrokenPicture, match="decoder error -2"):
        decode(whole[:8] + bytes(64) + whole[72:], settings)


@pytest.mark.parametrize(
    ("content", "greys"),
    [
        (grey_tiff(16, 1, struct.pack("<HH", 65535, 0)), [255, 0]),
        (grey_tiff(16, 0, struct.pack("<HH", 65535, 0)), [0, 255]),
        (grey_tiff(8, 0, b"\xff\x00"), [0, 255]),
        (grey_tiff(12, 1, b"\xff\xf8\x00"), [255, 127]),
    ],
    ids=["16 bits", "16 bits, white is 0", "8 bits, white is 0", "12 bits"],
)
def test_grey_tiffs_of_any_depth_are_as_light_as_they_are(content: bytes, greys: list[int]) -> None:
    picture = decode(content, DecodeSettings())
    assert np.asarray(picture)[0].tolist() == [[grey] * 3 for grey in greys]


SRGB_COLOURS = {
    b"r": (0.436, 0.2225, 0.0139),
    b"g": (0.3851, 0.7169, 0.0971),
    b"b": (0.1431, 0.0606, 0.7141),
}


def linear_profile(space: bytes, description: str) -> bytes:
    """A display's profile of linear light (ICC.1:2001-04), for RGB with sRGB's colours."""

    def numbers(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    text = description.encode() + b"\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + numbers(0.9642, 1.0, 0.8249),
    }
    line = b"curv" + bytes(8)
    if space == b"GRAY":
        tags[b"kTRC"] = line
    else:
        for name, colour in SRGB_COLOURS.items():
            tags[name + b"XYZ"] = b"XYZ " + bytes(4) + numbers(*colour)
            tags[name + b"TRC"] = line
    at, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        padded = content.ljust(-(-len(content) // 4) * 4, b"\0")
        table += name + struct.pack(">II", at + len(data), len(content))
        data += padded
    kind = b"mntr" + space.ljust(4) + b"XYZ "
    head = struct.pack(">I4xI12s12x4s", at + len(data), 0x02100000, kind, b"acsp")
    head = head.ljust(68, b"\0") + numbers(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


@pytest.mark.parametrize("name", ["sRGB-elle-V2-g10.icc", "GIMP built-in Linear sRGB", "Linear"])
@pytest.mark.parametrize("space", [b"RGB", b"GRAY"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_linear_light_is_made_srgb_whatever_its_profile_is_called(
    name: str, space: bytes, has_alpha: bool
) -> None:
    """Half of the light is grey 188 in sRGB (IEC 61966-2-1), and was taken for grey 128."""
    mode = ("LA" if has_alpha else "L") if space == b"GRAY" else "RGBA" if has_alpha else "RGB"
    grey = (128, 128, 128)[: 1 if space == b"GRAY" else 3]
    made = io.BytesIO()
    Image.new(mode, (4, 4), (*grey, 255) if has_alpha else grey).save(
        made, "PNG", icc_profile=linear_profile(space, name)
    )
    pixels = np.asarray(decode(made.getvalue(), DecodeSettings()))
    assert abs(pixels.astype(int) - 188).max() <= 1


def test_a_profile_for_greys_says_nothing_of_colours() -> None:
    made = io.BytesIO()
    Image.new("RGBA", (4, 4), (200, 100, 50, 255)).save(made, "PNG", icc_profile=linear_profile(b"GRAY", "g"))
    assert np.asarray(decode(made.getvalue(), DecodeSettings()))[0, 0].tolist() == [200, 100, 50]


def test_text_that_is_not_ascii_is_carried_over_as_it_is() -> None:
    """As UTF-8, which most write there, and as Latin-1; the camera's too, as text."""
    artist, rights, owner = "Zoë Müller".encode("latin-1"), "© 2024 José".encode(), "Jürgen".encode()
    exif = Image.Exif()
    exif[0x013B], exif[0x8298] = artist, rights
    exif[0x8769] = {0xA430: "J__rgen"}
    made = io.BytesIO()
    Image.new("RGB", (8, 8)).save(made, "JPEG", exif=exif.tobytes().replace(b"J__rgen", owner))
    written = exif_for(read_metadata(made.getvalue(), DecodeSettings()), ("exif",), "0" * 64)
    again = Image.Exif()
    again.load(written)
    assert again.get_ifd(0x8769)[0xA430] == owner.decode("latin-1")
    assert artist + b"\0" in written
    assert rights + b"\0" in written
