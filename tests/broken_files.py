"""Kinds of file that are no whole picture, many of them made from a good one."""

import struct
import zlib

from drawing import draw_face, encode, face_bytes


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def broken_files() -> dict[str, bytes]:
    """File names and contents; every one must end in quarantine."""
    jpeg, png = face_bytes(1), face_bytes(2, "PNG")
    webp, gif = face_bytes(3, "WEBP"), face_bytes(4, "GIF")
    tiff, bmp = face_bytes(5, "TIFF"), face_bytes(6, "BMP")
    avif = face_bytes(8, "AVIF")
    progressive = encode(draw_face(7), progressive=True)
    return {
        "empty.jpg": b"",
        "one-byte.jpg": b"\xff",
        "text.jpg": b"This is no picture.\n" * 20,
        "html.png": b"<!doctype html><title>404 Not Found</title>",
        "zeros.jpg": bytes(5000),
        "jpeg-header-only.jpg": jpeg[:20],
        "jpeg-half.jpg": jpeg[: len(jpeg) // 2],
        "jpeg-without-end.jpg": jpeg[: len(jpeg) - 200],
        "jpeg-progressive-half.jpg": progressive[: len(progressive) // 2],
        "jpeg-zeroed-tables.jpg": jpeg[:30] + bytes(400) + jpeg[430:],
        "png-header-only.png": png[:33],
        "png-half.png": png[: len(png) // 2],
        "png-bad-header-checksum.png": _flipped(png, 18),
        "png-bad-data.png": _flipped(png, len(png) // 2),
        "png-bomb.png": png_bomb(200_000, 200_000),
        "webp-half.webp": webp[: len(webp) // 2],
        "gif-half.gif": gif[: len(gif) // 2],
        "tiff-half.tif": tiff[: len(tiff) // 3],
        "bmp-half.bmp": bmp[: len(bmp) // 2],
        "avif-half.avif": avif[: len(avif) // 2],
        "pdf.jpg": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n",
        "svg.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zip.jpg": b"PK\x03\x04" + bytes(60),
    }
