"""Reasons to leave a picture where it is, for now or for good, though its content is not at fault."""

from maskdrop.ticket import Absence


class LeaveAlone(Exception):
    """The file is not to be touched now; the message says why."""

    def __init__(self, absence: Absence, message: str) -> None:
        super().__init__(message)
        self.absence = absence


class OriginalChanged(LeaveAlone):
    """The file in the inbox is gone, or is not the one that was meant."""

    def __init__(self, message: str = "gone or changed meanwhile") -> None:
        super().__init__(Absence.CHANGED, message)


class OriginalStuck(LeaveAlone):
    """This file can't be moved, or can't go where it belongs, though others can."""

    def __init__(self, message: str) -> None:
        super().__init__(Absence.STUCK, message)


class UnfitName(OriginalStuck):
    """A place can't take this one file, or nothing of its name; the place itself is not at fault."""


class StuckByFolder(OriginalStuck):
    """A folder in a tree can't take files, though the tree's base can."""

    def __init__(self, message: str, error: OSError) -> None:
        super().__init__(message)
        self.error = error
