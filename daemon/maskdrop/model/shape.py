"""The input that a network takes: how many pictures at once, and of which size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class InputShape:
    """Limits that a network's file sets.

    Attributes:
        fewest: smallest batch it takes; black pictures fill up smaller ones.
        most: largest batch, None for any.
        side: pixels per side that its input must have, None for any.
    """

    fewest: int = 1
    most: int | None = None
    side: int | None = None

    def limited(self, most: int) -> "InputShape":
        """The same limits, with a largest batch of ``most`` or fewer."""
        return replace(self, most=most if self.most is None else min(most, self.most))

    def filled_up(self, count: int) -> int:
        """How many pictures a batch of ``count`` is filled up to, for a device that plans for each size that
        comes: a power of two, unless that is too many."""
        least, even = max(count, self.fewest), 1 << (count - 1).bit_length()
        return max(least, even if self.most is None else min(even, self.most))

    def parts_of(self, count: int) -> Iterator[slice]:
        """A batch of ``count`` pictures, cut into parts that are small enough."""
        step = self.most or count
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))
