"""A picture whose labels are known."""

from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

LEAST_AGREEMENT = 0.99
"""Share of the known picture's pixels that must have the same label in fp32 and in the precision used."""


def known_picture(side: int) -> Pixels:
    """A portrait in the public domain (NASA: Eileen Collins), uint8 (side, side, 3)."""
    with Image.open(_beside_weights("known-face.jpg")) as image:
        return np.array(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def known_labels(side: int) -> Pixels:
    """The known picture's labels by the embedded weights in fp32, uint8 (side, side)."""
    with Image.open(_beside_weights("known-labels.png")) as image:
        return np.array(image.resize((side, side), Image.Resampling.NEAREST))


def _beside_weights(name: str) -> Path:
    return Path(str(files("maskdrop") / "weights" / name))
