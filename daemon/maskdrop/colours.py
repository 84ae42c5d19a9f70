"""Any decoded picture as people see it: upright, eight bits per channel, sRGB, transparency over black."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

_ORIENTATION = 0x0112  # EXIF 2.32
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How each orientation is made upright (EXIF 2.32, table 6)."""

_FIRST_ON_ITS_SIDE = 5

_BLACK_TO_WHITE_12, _BLACK_TO_WHITE_16 = 4095.0, 65535.0
_GREATEST_GREY = {"L;2": 3, "L;4": 15}
"""White in PNGs of two and four bits, by Pillow's raw modes; Pillow gives their pixels eight bits."""

_TIFF_BITS, _TIFF_MEANING, _WHITE_IS_ZERO = 258, 262, 0
"""BitsPerSample, PhotometricInterpretation, and the latter's value where white is 0 (TIFF 6.0)."""

_OTHER_CURVES = ("linear", "-g10", "-g18", "-g22", "-labl", "-rec709")
"""Marks of other curves in names of profiles; the last five are Elle Stone's, whose profiles Krita ships."""

_MODE_OF_PROFILE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's modes of the colour spaces that ICC profiles of pictures describe (ICC.1, table 19)."""


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; damaged EXIF turns nothing."""
    method = _TURNS.get(_orientation(image))
    return image if method is None else image.transpose(method)


def lies_on_its_side(image: Image.Image) -> bool:
    """Whether turning the picture upright exchanges width and height."""
    return _orientation(image) >= _FIRST_ON_ITS_SIDE


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none, or no valid one."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # Pillow raises every kind of error on damaged EXIF
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def fit_colour_key(image: ImageFile.ImageFile) -> None:
    """Give a PNG's transparent colour (PNG 1.2, 4.2.9) the eight bits that its pixels will have.

    Pillow gives the colour as it stands in the file, and its depth only until the pixels are decoded. Of 16
    bits per channel the upper eight remain, so that neighbouring colours become transparent too.
    """
    if image.format != "PNG" or not image.tile or "transparency" not in image.info:
        return
    key, stored = image.info["transparency"], image.tile[0].args
    if stored == "RGB;16B":
        image.info["transparency"] = tuple(channel >> 8 for channel in key)
    elif (most := _GREATEST_GREY.get(str(stored))) is not None:
        image.info["transparency"] = (key & most) * 255 // most


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit sRGB from any of Pillow's modes.

    16 bits and floats are scaled instead of clipped. Transparent pixels become black, as masked
    ones do: the colours that editors leave in them were never meant to be seen. A colour profile
    is applied; one that is damaged, or not of the picture's kind, is ignored.
    """
    image, profile = _eight_bits(image), image.info.get("icc_profile")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    elif image.mode == "P":
        image = image.convert("RGB")
    picture = _to_srgb(image, profile) if isinstance(profile, bytes) else None
    if picture is None:
        picture = image if image.mode == "RGB" else image.convert("RGB")  # convert would copy it
    if alpha is None:
        return picture
    black = Image.new("RGB", picture.size)
    black.paste(picture, mask=alpha)
    return black


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 16 or 32 bits so that 65,535 is white (in a TIFF of 12 bits, 4,095); one value may be
    transparent. Scale floats so that 1.0 is white or, if some are larger, 255."""
    if image.mode.startswith("I"):
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        white = _BLACK_TO_WHITE_12 if tags.get(_TIFF_BITS) == (12,) else _BLACK_TO_WHITE_16
        grey = np.asarray(image, dtype=np.float32) * (255.0 / white)
        if tags.get(_TIFF_MEANING) == _WHITE_IS_ZERO and image.mode.startswith("I;16"):
            grey = 255.0 - grey  # Pillow inverts only those of eight bits
        key = image.info.get("transparency")
        if isinstance(key, int):
            opaque = Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))
            return Image.merge("LA", (_grey(grey), opaque))
    elif image.mode == "F":
        grey = np.nan_to_num(np.asarray(image))
        if grey.max() <= 1.0:
            grey = grey * 255.0
    else:
        return image
    return _grey(grey)


def _is_srgb(description: str) -> bool:
    """Whether a profile is sRGB's, by its name. Profiles of sRGB's colours with another curve, such as linear
    light, hold that name too: GIMP's "built-in Linear sRGB", Krita's "sRGB-elle-V2-g10.icc"."""
    return "sRGB" in description and not any(mark in description.lower() for mark in _OTHER_CURVES)


def _is_grey(image: Image.Image) -> bool:
    """Whether a picture has no colours, by its mode or, where transparency made it RGBA, by its pixels."""
    if image.mode in ("1", "L"):
        return True
    if image.mode != "RGBA":
        return False
    red, green, blue, _ = image.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _grey(values: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The picture's colours in sRGB, or None where the profile can't be used, or is sRGB's."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _is_srgb(given.profile.profile_description or ""):
            return None
        mode = _MODE_OF_PROFILE.get(given.profile.xcolor_space.strip())
        if mode == "RGB":
            image = image.convert("RGB")
        if mode == "L" and _is_grey(image):
            image = image.getchannel("R") if image.mode == "RGBA" else image.convert("L")
        if image.mode != mode:
            return None
        return ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except MemoryError:
        raise
    except Exception:  # LittleCMS raises its own errors, and Pillow others, on damaged profiles
        return None
