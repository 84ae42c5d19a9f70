"""Pictures that are being labelled, whoever computes them."""

from typing import Protocol, TypeVar

Labelled = TypeVar("Labelled")


class UnderWay(Protocol[Labelled]):
    """What was begun and is waited for later."""

    @property
    def unfinished(self) -> list[int]:
        """Pictures that are still worked on or waited for, counted from 0."""
        ...

    def results(self) -> list[Labelled]:
        """What each gave, in the pictures' order, once none is worked on any more.

        Raises:
            Exception: the first of those that were raised over them.
        """
        ...
