"""What results are called, and whether they are there already."""

from maskdrop.config import Output, SaveSettings, Settings
from maskdrop.folders import Folders
from maskdrop.outbox import Outbox
from maskdrop.ticket import Ticket


def tail_of(output: Output, settings: SaveSettings) -> str:
    """What follows the picture's stem in the result's name."""
    return settings.suffix_of(output) + settings.extension_of(output)


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
