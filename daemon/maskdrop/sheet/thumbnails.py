"""Pictures made small: bounded in size, whatever lies in the folders."""

import io
from pathlib import Path

from PIL import Image

from maskdrop.beneath import open_folder, open_regular, split
from maskdrop.config import DecodeSettings
from maskdrop.decoding import BrokenPicture, decode
from maskdrop.quiet import quiet_libraries

SIDE = 512
"""Pixels of a thumbnail's longer side: enough to look closer."""

_QUALITY = 82
_RESULT_FORMATS = ("JPEG", "PNG", "WEBP")


def of_original(content: bytes, settings: DecodeSettings) -> Image.Image | None:
    """An original as the daemon sees it, RGB; None where it can't be decoded."""
    try:
        return _small(decode(content, settings))
    except (BrokenPicture, MemoryError):
        return None


def of_result(outbox: Path, path: str, settings: DecodeSettings) -> Image.Image | None:
    """A result, RGB or RGBA; None where it is gone or can't be decoded."""
    parent, name = split(path)
    try:
        with (
            open_folder(outbox, parent) as folder,
            open_regular(folder, name) as file,
            quiet_libraries(),
            Image.open(file, formats=_RESULT_FORMATS) as image,
        ):
            if image.width * image.height > settings.max_pixels:
                return None
            return _small(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except Exception:  # anything may lie there, and decoders raise every kind of error on it
        return None


def encoded(image: Image.Image) -> bytes:
    """As WebP, which takes transparency too."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _small(image: Image.Image) -> Image.Image:
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image
