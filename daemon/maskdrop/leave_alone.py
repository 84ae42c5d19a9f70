"""Why a picture is left where it is, for now or for good, though nothing is wrong with its content."""

from maskdrop.ticket import Absence


class LeaveAlone(Exception):
    """The file is not to be touched now; the message says why."""

    def __init__(self, absence: Absence, message: str) -> None:
        super().__init__(message)
        self.absence = absence


class OriginalChanged(LeaveAlone):
    """The file in the inbox is gone, or not the one that was meant."""

    def __init__(self, message: str = "gone or changed meanwhile") -> None:
        super().__init__(Absence.CHANGED, message)


class OriginalStuck(LeaveAlone):
    """This file can't be moved, or not where it belongs, though folders are well."""

    def __init__(self, message: str) -> None:
        super().__init__(Absence.STUCK, message)


class UnfitName(OriginalStuck):
    """A place can't take this one file, or can have nothing of its name, so the place is not at fault."""


class StuckByFolder(OriginalStuck):
    """A folder below a folder tree's base can't take files, though the base can."""

    def __init__(self, message: str, error: OSError) -> None:
        super().__init__(message)
        self.error = error
