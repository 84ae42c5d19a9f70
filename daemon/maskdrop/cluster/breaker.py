"""Ends a batch when a place fails every picture: keys that are no longer valid, a disk that is full."""

from collections.abc import Mapping
from dataclasses import dataclass

from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.cargo import End
from maskdrop.cluster.stores import PlaceTrouble, Store, Unfit
from maskdrop.decoding import BrokenPicture
from maskdrop.leave_alone import LeaveAlone, UnfitName
from maskdrop.names import printable
from maskdrop.ticket import Absence

MOST_LEFT = 1000
"""Pictures left, with none saved between them, before the places are checked."""

_OF_PLACES = ("FolderTrouble", Absence.STUCK.value)
"""Errors that a place may be at fault for."""


@dataclass(frozen=True)
class Place:
    """One of a batch's places.

    Attributes:
        writes: whether something is to be written there.
    """

    store: Store
    writes: bool


class Breaker:
    """Owner of the count of pictures left in a row."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places
        self._left = 0
        self._readable = ""

    def note(self, end: End, path: str = "") -> None:
        """Note a picture's end. After many were left, check each place: the pictures may be to blame instead.

        Args:
            path: of the picture. The last one that was readable is read again, to see whether any still is.

        Raises:
            PlaceTrouble: a place can't be used.
        """
        if end.outcome is not Outcome.LEFT:
            self._readable = path
        if end.outcome is Outcome.SAVED:
            self._left = 0
        elif end.outcome is Outcome.LEFT and end.error in _OF_PLACES:
            self._left += 1
        if self._left >= MOST_LEFT:
            self._left = 0
            for name, place in self._places.items():
                if found := place.store.check(place.writes) or _unreadable(place, self._readable or path):
                    raise PlaceTrouble(f"{name} = {place.store.address}: {found.problem}; {found.remedy}")


def _unreadable(place: Place, path: str) -> Unfit | None:
    """Why an object can't be read: keys that may list may not be allowed to read, and a list file's objects
    have no common place that could be checked."""
    if place.writes or not path or not place.store.is_remote:
        return None
    try:
        place.store.read(path, 0)  # with a limit of 0 bytes, only the size is asked for
    except LeaveAlone as error:
        if error.absence is Absence.STUCK and not isinstance(error, UnfitName):
            remedy = "give keys that may read it (AWS_ACCESS_KEY_ID, …)"
            return Unfit(f"{printable(path)}: {error}", remedy)
    except BrokenPicture:
        pass
    return None
