"""From a file's content to an upright picture in RGB, or to an error that says what is wrong with it."""

import io
import re
import warnings
from contextlib import nullcontext

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from maskdrop.colours import fit_colour_key, lies_on_its_side, to_rgb, upright
from maskdrop.config import DecodeSettings
from maskdrop.quiet import quiet_libraries

_WANT_OF_MEMORY = re.compile(r"out of memory|(?:de|en)coder error -9\b|^encoding error 1$", re.IGNORECASE)
"""How codecs report it: code -9 of ``PIL.ImageFile.ERRORS`` in words or, from libtiff, as a number; libavif's
words; libwebp's VP8_ENC_ERROR_OUT_OF_MEMORY (``webp/encode.h``)."""


_PHOTOMETRIC, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 262, 278, 322, 323
_YCBCR = 6
_ALL_ROWS = 2**32 - 1
"""Tags of a TIFF, and the default of RowsPerStrip."""

_MOST_ROWS = 2**31 - 1
"""A strip with more rows than the picture is cut to the picture's, except in YCbCr, which is read by whole
strips; with more than this, Pillow finds no memory for it (libImaging/TiffDecode.c)."""


class BrokenPicture(Exception):
    """The file's content can't become a picture. The message is for the reason file."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


def set_up_decoding() -> None:
    """Prepare this process for decoding: Pillow's own limit off, its warnings off, its formats loaded."""
    Image.MAX_IMAGE_PIXELS = None  # checked in `decode`, against the configured limit, before decoding
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # one text may be as long as all together
    warnings.simplefilter("ignore")
    Image.init()


def decode(content: bytes, settings: DecodeSettings, is_guest: bool = False) -> Image.Image:
    """Decode a picture in full: first frame, upright, RGB, at its own size.

    Raises:
        BrokenPicture: as `decode_at_least`.
    """
    return decode_at_least(content, settings, None, is_guest)[0]


def decode_at_least(
    content: bytes, settings: DecodeSettings, least: int | None, is_guest: bool = False
) -> tuple[Image.Image, tuple[int, int], bool]:
    """Decode a picture: first frame, upright, RGB.

    Args:
        least: with ``decode.draft``, a JPEG may come at 1/2, 1/4 or 1/8 of its size if both sides
            stay as long as this; None: it comes at its own size.
        is_guest: the process is another program's, which may have several threads: what libraries write
            to standard error is left alone.

    Returns:
        The picture, its own upright width and height, and whether it has EXIF or a profile.

    Raises:
        BrokenPicture: the content is no picture of a configured format, truncated, damaged, or
            larger than ``max_pixels``, which is checked before any pixel is decoded.
    """
    with nullcontext() if is_guest else quiet_libraries():  # its own errors are not the picture's
        return _decoded(content, settings, least)


def _decoded(
    content: bytes, settings: DecodeSettings, least: int | None
) -> tuple[Image.Image, tuple[int, int], bool]:
    formats = [name.upper() for name in settings.formats]
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            pixels = image.width * image.height
            if pixels > settings.max_pixels:
                problem = f"{image.width} x {image.height} pixels are more than decode.max_pixels"
                raise BrokenPicture("TooManyPixels", f"{problem} = {settings.max_pixels}")
            width, height = image.size
            if settings.draft and least is not None:
                image.draft(None, (least, least))
            fit_colour_key(image)
            _load(image, settings.max_pixels)
            size = (height, width) if lies_on_its_side(image) else (width, height)
            return to_rgb(upright(image)), size, _has_metadata(image)
    except BrokenPicture:
        raise
    except UnidentifiedImageError as error:
        problem = f"not a picture of a format in decode.formats ({', '.join(formats)})"
        raise BrokenPicture(type(error).__name__, problem) from error
    except Exception as error:  # decoders raise every kind of error on damaged input
        refuse_want_of_memory(error)
        raise BrokenPicture(type(error).__name__, str(error) or type(error).__name__) from error


def _load(image: Image.Image, max_pixels: int) -> None:
    try:
        image.load()
    except OSError as error:
        if image.format == "TIFF" and _pixels_in_a_part(image) > max_pixels:  # libtiff needs memory for it
            problem = "its tiles or strips are larger than decode.max_pixels"
            raise BrokenPicture(type(error).__name__, problem) from error
        raise


def _pixels_in_a_part(image: Image.Image) -> int:
    """How many pixels a tile or strip of a TIFF has, by its tags (TIFF 6.0, sections 3 and 15)."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    wide = tags.get(_TILE_WIDTH, image.width)
    high = tags.get(_TILE_LENGTH, tags.get(_ROWS_PER_STRIP, image.height))
    if not isinstance(wide, int) or not isinstance(high, int):
        return 0
    if high == _ALL_ROWS and _TILE_LENGTH not in tags:
        return wide * image.height
    is_cut = _TILE_LENGTH not in tags and high <= _MOST_ROWS and tags.get(_PHOTOMETRIC) != _YCBCR
    return wide * (min(high, image.height) if is_cut else high)


def _has_metadata(image: Image.Image) -> bool:
    try:
        return "icc_profile" in image.info or len(image.getexif()) > 0
    except MemoryError:
        raise
    except Exception:  # damaged EXIF fails in many ways; `read_metadata` saves what it can
        return True


def refuse_want_of_memory(error: Exception) -> None:
    """Raise MemoryError if a decoder's or encoder's error means that.

    Want of memory is not the picture's fault on the first try: it ends the worker and counts as an attempt.
    """
    if isinstance(error, MemoryError) or _WANT_OF_MEMORY.search(str(error)):
        raise MemoryError(str(error) or "no memory for the picture") from error


def at_model_size(picture: Image.Image, side: int) -> Image.Image:
    """The picture as the network reads it, ``side`` x ``side``, bilinear."""
    if picture.size == (side, side):
        return picture  # resize would copy it
    return picture.resize((side, side), Image.Resampling.BILINEAR)
