"""Pictures that are being labelled, by whatever device."""

from typing import Protocol, TypeVar

Labelled = TypeVar("Labelled")


class UnderWay(Protocol[Labelled]):
    """Pictures whose labelling has begun, and is waited for later."""

    @property
    def unfinished(self) -> list[int]:
        """Numbers, from 0, of the pictures that are still worked on or waited for."""
        ...

    def results(self) -> list[Labelled]:
        """Each picture's result, in the pictures' order, once all are done.

        Raises:
            Exception: the first that a picture raised, in the pictures' order.
        """
        ...
