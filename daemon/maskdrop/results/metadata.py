"""What a result keeps of its picture's metadata: EXIF tags, a colour profile and, if asked for, the place.

Of the picture's own tags, only listed ones are copied; of the camera's, all but listed ones. So a result
gets no thumbnail, which shows what was masked away, no maker's note or XMP, which may hold places, and no tag
about the file's structure.
"""

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from PIL import Image, ImageCms

from maskdrop.config import DecodeSettings, Metadata
from maskdrop.quiet import quiet_libraries
from maskdrop.results.provenance import provenance

_CAMERA, _PLACE, _COLOUR_SPACE = 0x8769, 0x8825, 0xA001  # EXIF 2.32: sub-folders of tags, and sRGB or not
_SRGB = 1

_DESCRIBING = frozenset({0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0132, 0x013B, 0x8298})
"""The picture's own tags that are copied (EXIF 2.32): description, make, model, resolution and its unit,
time, artist, copyright."""

_NOT_OF_CAMERA = frozenset({0x927C, 0x9214, 0xA001, 0xA002, 0xA003, 0xA005, 0xA214})
"""Left out of the camera's tags: maker's note, colour space, size, sub-folder, positions in the unturned
picture."""

_LONGEST = 60_000
"""Bytes of EXIF that fit into a JPEG for certain: a segment holds 65,533 (ITU T.81, B.1.1.4)."""

_DATE = slice(24, 36)  # ICC.1:2022, 7.2.8: when the profile was made


@dataclass(frozen=True)
class Carried:
    """A picture's metadata as read; empty where there is none, or none that can be read."""

    describing: Mapping[int, Any] = field(default_factory=dict)
    camera: Mapping[int, Any] = field(default_factory=dict)
    place: Mapping[int, Any] = field(default_factory=dict)
    has_profile: bool = False


def read_metadata(content: bytes, settings: DecodeSettings) -> Carried:
    """The metadata of a picture that can be decoded. Reads headers only."""
    formats = [name.upper() for name in settings.formats]
    try:
        with quiet_libraries(), Image.open(io.BytesIO(content), formats=formats) as image:
            has_profile = isinstance(image.info.get("icc_profile"), bytes)
            try:
                exif = image.getexif()
                describing = {tag: value for tag, value in exif.items() if tag in _DESCRIBING}
                camera = {t: v for t, v in exif.get_ifd(_CAMERA).items() if t not in _NOT_OF_CAMERA}
                return Carried(describing, camera, dict(exif.get_ifd(_PLACE)), has_profile)
            except MemoryError:
                raise
            except Exception:  # damaged EXIF fails in many ways
                return Carried(has_profile=has_profile)
    except MemoryError:
        raise
    except Exception:  # from damage that decoding tolerates
        return Carried()


def exif_for(carried: Carried, wanted: tuple[Metadata, ...], sha256: str) -> bytes:
    """EXIF of a result: its provenance, and the wanted tags of its picture. The camera's tags, the place, and
    then all others are left out, until the rest can be written and is short enough.
    """
    describing, camera = (carried.describing, carried.camera) if "exif" in wanted else ({}, {})
    place = carried.place if "gps" in wanted else {}
    for parts in ((describing, camera, place), (describing, {}, place), (describing, {}, {})):
        try:
            whole = _exif(*parts, sha256)
        except MemoryError:
            raise
        except Exception:  # Pillow writes by the values' types, and anything may have been read
            continue
        if len(whole) <= _LONGEST:
            return whole
    return provenance(sha256).tobytes()


class _AsRead(str):
    """Text that Pillow read as Latin-1, and would write with question marks for all that isn't ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        """The bytes as they were read."""
        return super().encode("latin-1")


def _as_read(tags: Mapping[int, Any]) -> dict[int, Any]:
    return {tag: _AsRead(value) if isinstance(value, str) else value for tag, value in tags.items()}


def _exif(
    describing: Mapping[int, Any], camera: Mapping[int, Any], place: Mapping[int, Any], sha256: str
) -> bytes:
    exif = provenance(sha256)
    exif.update(_as_read(describing))
    if camera:
        exif[_CAMERA] = {**_as_read(camera), _COLOUR_SPACE: _SRGB}
    if place:
        exif[_PLACE] = _as_read(place)
    return exif.tobytes()


def profile_for(carried: Carried, wanted: tuple[Metadata, ...]) -> bytes | None:
    """The colour profile of a result: sRGB's, which its pixels are in, if wanted and the picture had one."""
    return srgb_profile() if carried.has_profile and "icc" in wanted else None


@cache
def srgb_profile() -> bytes:
    """An sRGB profile with a fixed date, so that it is the same every day."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_DATE] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(profile)
