"""What results are called, in which format they are written, and whether they are there already."""

from maskdrop.config import ImageOutput, Output, SaveSettings, Settings
from maskdrop.folders import Folders
from maskdrop.outbox import SIDECAR_ENDING, Outbox
from maskdrop.ticket import Ticket

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


class EarlierResults:
    """What earlier batches have left in the outbox. No configuration changes while a batch is at work."""

    def __init__(self, folders: Folders, settings: Settings) -> None:
        self._outbox, self._tails = Outbox(folders, settings.folders), tails_of(settings.save)

    def of(self, ticket: Ticket, sha256: str) -> tuple[str, ...] | None:
        """The paths of everything that is wanted of a picture of this content; None where any is missing."""
        return self._outbox.published(ticket, sha256, self._tails)
