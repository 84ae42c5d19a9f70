"""Damaged pictures without end: good files of every format, with bytes flipped, cut, doubled and mixed."""

import random
import struct
import zlib
from collections.abc import Callable

from drawing import draw_face, encode

Mutation = Callable[[bytearray, random.Random], None]

HEAD = 160
"""Bytes at a file's start that are hit as often as all others together: headers are there."""


def good_files() -> list[bytes]:
    """Small pictures of each format, in the variants that decoders treat apart."""
    face, second = draw_face(1, 48, 60), draw_face(2, 48, 60)
    few, grey, clear = face.quantize(30), face.convert("L"), face.convert("RGBA")
    exif = face.getexif()
    exif[0x0112] = 6

    def frames() -> dict[str, object]:
        return {"save_all": True, "append_images": [second.copy()]}

    return [
        encode(face, "JPEG"),
        encode(face, "JPEG", progressive=True, exif=exif),
        encode(grey, "JPEG"),
        encode(face.convert("CMYK"), "JPEG"),
        encode(face, "PNG"),
        encode(few, "PNG", transparency=3),
        encode(clear, "PNG"),
        encode(face, "PNG", **frames()),
        encode(face, "WEBP"),
        encode(clear, "WEBP", lossless=True),
        encode(face, "WEBP", **frames()),
        encode(few, "GIF"),
        encode(few, "GIF", save_all=True, append_images=[second.quantize(30)]),
        encode(face, "TIFF"),
        encode(face, "TIFF", compression="tiff_lzw"),
        encode(face, "TIFF", compression="jpeg"),
        encode(face.convert("1"), "TIFF", compression="group4"),
        encode(face.convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
        encode(grey.convert("I;16"), "TIFF"),
        encode(grey.convert("F"), "TIFF"),
        encode(face, "BMP"),
        encode(few, "BMP"),
        encode(face.convert("1"), "BMP"),
        encode(face, "AVIF"),
        encode(clear, "AVIF"),
        encode(face, "AVIF", **frames()),
    ]


def mutate(good: list[bytes], chance: random.Random) -> bytes:
    """One of the files with one to six damages. The same generator state gives the same file."""
    data = bytearray(chance.choice(good))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(MUTATIONS)(data, chance)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and chance.random() < 0.7:
        mend_checksums(data)
    return bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    end = min(HEAD, len(data)) if chance.random() < 0.5 else len(data)
    return chance.randrange(end) if end else 0


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))


def _number(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    number = chance.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, chance.randrange(2**32)))
    data[place : place + 4] = struct.pack(chance.choice("<>") + "I", number)


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _drop(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    del data[place : place + chance.randint(1, 64)]


def _double(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    data[place:place] = data[place : place + chance.randint(1, 64)]


def _noise(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    size = chance.randint(1, 64)
    data[place : place + size] = chance.randbytes(size)


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _flip, _set, _set, _number, _cut, _drop, _double, _noise)


def mend_checksums(png: bytearray) -> None:
    """Make each chunk's checksum right again, as far as the chunks can be followed: otherwise what is
    behind the checksums is never tried."""
    place = 8
    while place + 12 <= len(png):
        (size,) = struct.unpack_from(">I", png, place)
        end = place + 8 + size
        if end + 4 > len(png):
            return
        struct.pack_into(">I", png, end, zlib.crc32(png[place + 4 : end]))
        place = end + 4
