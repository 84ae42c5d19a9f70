"""Pictures of every kind that inboxes hold, each with the pixels it must become."""

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from drawing import draw_face, encode

Pixels = NDArray[np.uint8]

LOSSY = 9.0
"""Steps by which lossy formats may be off on average: the drawings' background is coloured noise."""


@dataclass(frozen=True)
class Kind:
    """A file's content, the pixels it becomes, and how far lossy ones may be off on average."""

    content: bytes
    expected: Pixels
    tolerance: float = 0.0


def picture_kinds() -> dict[str, Kind]:
    """By file name; docs/formats.md has a row for each."""
    face = draw_face(1, 96, 120)
    colours = {**plain(face), **channels(face), **transparent(face), **colour_keys(face), **profiles(face)}
    return {**colours, **turned(face), **sizes()}


def plain(face: Image.Image) -> dict[str, Kind]:
    """Each format, still and moving: the first frame counts."""
    pixels = np.asarray(face)

    def frames() -> dict[str, Any]:  # new ones each time: a saved image keeps traits of that format
        return {"save_all": True, "append_images": [draw_face(2, 96, 120)]}

    few, other = face.quantize(200), draw_face(2, 96, 120).quantize(200)
    shown = np.asarray(few.convert("RGB"))
    return {
        "plain.jpg": Kind(encode(face, "JPEG", quality=98), pixels, LOSSY),
        "progressive.jpg": Kind(encode(face, "JPEG", quality=98, progressive=True), pixels, LOSSY),
        "mpo.jpg": Kind(encode(face, "MPO", quality=98, **frames()), pixels, LOSSY),
        "plain.png": Kind(encode(face, "PNG"), pixels),
        "animated.png": Kind(encode(face, "PNG", **frames()), pixels),
        "plain.webp": Kind(encode(face, "WEBP", lossless=True), pixels),
        "animated.webp": Kind(encode(face, "WEBP", lossless=True, **frames()), pixels),
        "plain.gif": Kind(encode(few, "GIF"), shown),
        "animated.gif": Kind(encode(few, "GIF", save_all=True, append_images=[other]), shown),
        "plain.tif": Kind(encode(face, "TIFF"), pixels),
        "pages.tif": Kind(encode(face, "TIFF", **frames()), pixels),
        "plain.bmp": Kind(encode(face, "BMP"), pixels),
        "plain.avif": Kind(encode(face, "AVIF", quality=95), pixels, LOSSY),
        "animated.avif": Kind(encode(face, "AVIF", quality=95, **frames()), pixels, LOSSY),
    }


def channels(face: Image.Image) -> dict[str, Kind]:
    """Grey, palettes, printers' inks, and depths other than eight bits."""
    pixels = np.asarray(face)
    grey, paper = face.convert("L"), face.convert("1")
    few = face.quantize(100)
    ramp = np.linspace(0, 65535, 96 * 120).reshape(120, 96)
    ramp_seen = grey_to_rgb(ramp / 65535 * 255)
    return {
        "grey.jpg": Kind(encode(grey, "JPEG", quality=98), grey_to_rgb(np.asarray(grey)), LOSSY),
        "grey.png": Kind(encode(grey, "PNG"), grey_to_rgb(np.asarray(grey))),
        "one-bit.png": Kind(encode(paper, "PNG"), grey_to_rgb(np.asarray(paper) * 255)),
        "palette.png": Kind(encode(few, "PNG"), np.asarray(few.convert("RGB"))),
        "grey-16.png": Kind(encode(Image.fromarray(ramp.astype(np.uint16)), "PNG"), ramp_seen, 1),
        "grey-16.tif": Kind(encode(Image.fromarray(ramp.astype(np.uint16)), "TIFF"), ramp_seen, 1),
        "rgb-16.png": Kind(png_by_hand(pixels.astype(np.uint16) * 257, 16), pixels),
        "float.tif": Kind(encode(Image.fromarray((ramp / 65535).astype(np.float32)), "TIFF"), ramp_seen, 1),
        "cmyk.jpg": Kind(encode(face.convert("CMYK"), "JPEG", quality=98), pixels, LOSSY),
        "cmyk.tif": Kind(encode(face.convert("CMYK"), "TIFF"), pixels, 1),
        "lab.tif": Kind(encode(to_lab(face), "TIFF"), pixels, 4),
    }


def transparent(face: Image.Image) -> dict[str, Kind]:
    """Left third transparent, middle third half so, with colours hidden in what can't be seen."""
    alpha = np.repeat(np.array([0, 128, 255], dtype=np.uint8), 32)[None, :].repeat(120, 0)
    pixels = np.asarray(face)
    rgba = Image.fromarray(np.dstack([pixels, alpha]))
    seen = np.rint(pixels * (alpha[:, :, None] / 255.0)).astype(np.uint8)
    grey = np.asarray(face.convert("L"))
    grey_alpha = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
    grey_seen = np.rint(grey_to_rgb(grey) * (alpha[:, :, None] / 255.0)).astype(np.uint8)
    few = face.quantize(100)
    index = np.asarray(few)
    hole = int(index[60, 48])
    without = np.where((index == hole)[:, :, None], 0, np.asarray(few.convert("RGB"))).astype(np.uint8)
    return {
        "alpha.png": Kind(encode(rgba, "PNG"), seen, 0.5),
        "grey-alpha.png": Kind(encode(grey_alpha, "PNG"), grey_seen, 0.5),
        "palette-hole.png": Kind(encode(few, "PNG", transparency=hole), without),
        "hole.gif": Kind(encode(few, "GIF", transparency=hole), without),
        "alpha.webp": Kind(encode(rgba, "WEBP", lossless=True, exact=True), seen, 0.5),
        "alpha.tif": Kind(encode(rgba, "TIFF"), seen, 0.5),
    }


def colour_keys(face: Image.Image) -> dict[str, Kind]:
    """PNGs with one transparent colour, which the left third has."""
    pixels, grey = np.asarray(face), np.asarray(face.convert("L"))
    kinds = {}
    for depth, key in ((2, 2), (4, 9)):
        few = grey >> (8 - depth)
        few[:, :32] = key
        seen = np.where(few == key, 0, few * (255 // (2**depth - 1)))
        kinds[f"grey-{depth}-key.png"] = Kind(png_by_hand(few, depth, (key,)), grey_to_rgb(seen))
    deep = grey.astype(np.uint16) * 257
    deep[:, :32], deep[:, 32:64] = 0x8001, 0x8002  # only the first of them is the key
    seen = np.where(deep == 0x8001, 0, deep >> 8)
    kinds["grey-16-key.png"] = Kind(png_by_hand(deep, 16, (0x8001,)), grey_to_rgb(seen), 1)
    key16 = (0x1234, 0xABCD, 0x4321)
    rgb = pixels.astype(np.uint16) * 257
    rgb[:, :32] = key16
    shown = pixels * (np.arange(96) >= 32)[None, :, None].astype(np.uint8)
    kinds["rgb-16-key.png"] = Kind(png_by_hand(rgb, 16, key16), shown)
    return kinds


def turned(face: Image.Image) -> dict[str, Kind]:
    """Turned and mirrored so that EXIF's orientation makes them upright; and EXIF that is damaged."""
    stored = {
        1: face,
        2: face.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: face.rotate(180),
        4: face.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: face.transpose(Image.Transpose.TRANSPOSE),
        6: face.rotate(90, expand=True),
        7: face.transpose(Image.Transpose.TRANSVERSE),
        8: face.rotate(-90, expand=True),
    }
    pixels, kinds = np.asarray(face), {}
    for orientation, image in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        kinds[f"exif-{orientation}.png"] = Kind(encode(image, "PNG", exif=exif), pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds["exif-6.jpg"] = Kind(encode(stored[6], "JPEG", quality=98, exif=exif), pixels, LOSSY)
    kinds["exif-broken.jpg"] = Kind(
        encode(face, "JPEG", quality=98, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), pixels, LOSSY
    )
    return kinds


def sizes() -> dict[str, Kind]:
    """The smallest, and the widest that still fit all formats' limits."""
    wide = np.linspace(0, 255, 30_000).astype(np.uint8)[None, :, None].repeat(20, 0).repeat(3, 2)
    dot = np.full((1, 1, 3), (10, 200, 30), dtype=np.uint8)
    return {
        "dot.png": Kind(encode(Image.fromarray(dot), "PNG"), dot),
        "wide.png": Kind(encode(Image.fromarray(wide), "PNG"), wide),
        "high.png": Kind(encode(Image.fromarray(wide.transpose(1, 0, 2)), "PNG"), wide.transpose(1, 0, 2)),
    }


def profiles(face: Image.Image) -> dict[str, Kind]:
    """Colour profiles: sRGB itself, one in which red and green are exchanged, and a damaged one."""
    pixels = np.asarray(face)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = pixels[:, :, [1, 0, 2]]
    return {
        "icc-srgb.png": Kind(encode(face, "PNG", icc_profile=srgb), pixels),
        "icc-other.png": Kind(encode(face, "PNG", icc_profile=red_for_green(srgb)), exchanged, 1),
        "icc-other.jpg": Kind(
            encode(face, "JPEG", quality=98, icc_profile=red_for_green(srgb)), exchanged, LOSSY
        ),
        "icc-broken.png": Kind(encode(face, "PNG", icc_profile=b"no profile" * 20), pixels),
    }


def red_for_green(srgb: bytes) -> bytes:
    """An sRGB profile with the places of the red and green primaries exchanged in its tag table
    (ICC.1, 7.3), and of another name."""
    profile = bytearray(srgb.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))
    count = struct.unpack_from(">I", profile, 128)[0]
    places = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def grey_to_rgb(grey: NDArray[np.generic]) -> Pixels:
    return np.asarray(grey).astype(np.uint8)[:, :, None].repeat(3, 2)


def to_lab(image: Image.Image) -> Image.Image:
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    return lab


def png_by_hand(pixels: NDArray[Any], depth: int, key: tuple[int, ...] | None = None) -> bytes:
    """A PNG of kinds which Pillow reads but does not write: of so many bits a channel, grey or RGB, and
    with a transparent colour (PNG 1.2, 4.1.1 and 4.2.9).

    Args:
        pixels: (height, width) or (height, width, 3); the width fills whole bytes.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    stored = pixels.astype(">u2").reshape(height, -1)
    bits = np.unpackbits(stored.view(np.uint8), axis=1).reshape(height, -1, 16)[:, :, 16 - depth :]
    raw = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits.reshape(height, -1), axis=1))
    header = struct.pack(">IIBBBBB", width, height, depth, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b"")
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
