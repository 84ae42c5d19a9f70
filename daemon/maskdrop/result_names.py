"""What results are called, and in which format they are written."""

from maskdrop.config import ImageOutput, Output, SaveSettings
from maskdrop.outbox import SIDECAR_ENDING

EXTENSION = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


def format_of(output: ImageOutput, settings: SaveSettings) -> str:
    """The format of an output: labels need a palette, a cut-out needs transparency."""
    if output == "labels" or (output == "cutout" and settings.format == "jpeg"):
        return "png"
    return settings.format


def tail_of(output: Output, settings: SaveSettings) -> str:
    """What follows the picture's stem in the result's name."""
    if output == "json":
        return settings.suffix_of(output) + SIDECAR_ENDING
    return settings.suffix_of(output) + EXTENSION[format_of(output, settings)]


def tails_of(settings: SaveSettings) -> list[str]:
    """The same of every output that is wanted."""
    return [tail_of(output, settings) for output in settings.outputs]
