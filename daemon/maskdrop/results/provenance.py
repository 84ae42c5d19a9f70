"""Of which picture a result was made: its SHA-256 is in each (EXIF tag DocumentName; in JSON `sha256`)."""

import json
from pathlib import Path
from typing import IO

from PIL import Image

from maskdrop import __version__
from maskdrop.beneath import open_folder, open_regular
from maskdrop.config import SIDECAR_ENDING

_DOCUMENT_NAME = 0x010D  # EXIF 2.32 / TIFF 6.0: the document this image was made from
_SOFTWARE = 0x0131  # TIFF 6.0
_RESULT_FORMATS = ("JPEG", "PNG", "WEBP")
_LONGEST_SIDECAR = 2**18


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
    """The same of a name in a folder. Reads the file's headers alone: whatever lies there may be
    anybody's, and made to be costly to decode.
    """
    try:
        with open_regular(folder, name) as file:
            return source_in(file, name)
    except OSError:
        return None


def source_in(file: IO[bytes], name: str) -> str | None:
    """The same of a file that is open, and has this name."""
    try:
        if name.endswith(SIDECAR_ENDING):
            told = json.loads(file.read(_LONGEST_SIDECAR))
            return str(told["sha256"]) if "maskdrop" in told else None
        with Image.open(file, formats=_RESULT_FORMATS) as image:
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
            text = str(exif.get(_DOCUMENT_NAME, ""))
    except Exception:  # whatever lies there, it is not our result
        return None
    return text.removeprefix("sha256:") if text.startswith("sha256:") else None
