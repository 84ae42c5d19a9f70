"""Which pictures would give their results the same names."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from maskdrop.names import fit


def that_share_names(paths: Sequence[str], tails: Sequence[str]) -> set[str]:
    """Pictures of which any result, with these tails, would have the same name as another picture's:
    ``a.jpg`` and ``a.png``, but also ``a.jpg`` and ``a.model.jpg`` where a face and a mask are wanted."""
    counts = Counter(name for path in paths for name in _names(path, tails))
    if len(counts) == counts.total():
        return set()
    return {path for path in paths if any(counts[name] > 1 for name in _names(path, tails))}


def _names(path: str, tails: Sequence[str]) -> Iterator[str]:
    whole = PurePosixPath(path)
    parent, stem = whole.parent, whole.stem
    return (f"{parent}/{fit(stem, tail)}" for tail in dict.fromkeys(tails))
