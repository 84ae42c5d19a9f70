"""Where the weights are that come with maskdrop; no torch is needed to know that."""

from importlib.resources import files
from pathlib import Path


def embedded_weights() -> Path:
    """Path of the weights that come with maskdrop."""
    return Path(str(files("maskdrop") / "weights" / "faces.safetensors"))
