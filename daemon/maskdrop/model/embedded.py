"""Where the weights that come with maskdrop are, to be imported without torch."""

from importlib.resources import files
from pathlib import Path


def embedded_weights() -> Path:
    """Path of the weights that come with maskdrop."""
    return Path(str(files("maskdrop") / "weights" / "faces.safetensors"))
