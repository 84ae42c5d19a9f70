"""File names: showing any of them on one line, and making new ones that fit.

Names are ``str`` as Python's os functions give them: bytes that are not UTF-8 become lone
surrogates, and go back to the same bytes when the name is used.
"""

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path, PurePath

NAME_MAX = 255
"""Longest file name in bytes on Linux (``NAME_MAX`` of limits.h)."""


_LONGEST_CHARACTER = 4
"""Bytes of UTF-8 at most; in all but the first, the upper two bits are 10 (RFC 3629, section 3)."""

_ONE_BY_ONE = 8
"""Up to this number, names are tried one by one; then bisection finds out how many are in use."""

_LONG_SUFFIX = 32
"""Bytes that a suffix has at most, its dot included; anything longer is part of the name."""


def printable(name: str | PurePath) -> str:
    """The name on one line of valid UTF-8: control characters and odd bytes escaped."""
    whole = str(name)
    if whole.isprintable():  # nearly every name: lone surrogates aren't printable
        return whole
    text = "".join(c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else _escape(c) for c in whole)
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def at_home(path: Path) -> Path:
    """The path with a leading ``~`` expanded as by a shell, which leaves it alone in ``--option=~/file``."""
    try:
        return path.expanduser()
    except RuntimeError:  # no user has that name
        return path


def told_exactly(path: str) -> dict[str, str]:
    """A path as reports give it: printable, and if that differs from the path, also its bytes in ``hex``."""
    shown = printable(path)
    return {"path": shown} if shown == path else {"path": shown, "hex": os.fsencode(path).hex()}


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def fits(path: str, pattern: str) -> bool:
    """Whether a relative path matches a glob: its name alone, unless the glob holds a ``/``."""
    return fnmatchcase(path if "/" in pattern else PurePath(path).name, pattern)


def fit(stem: str, tail: str, limit: int = NAME_MAX) -> str:
    """``stem + tail``, the stem cut between two characters so that the name has at most ``limit`` bytes."""
    room, encoded = limit - len(os.fsencode(tail)), os.fsencode(stem)
    if len(encoded) <= room:
        return stem + tail
    last = range(room, max(-1, room - _LONGEST_CHARACTER), -1)
    starts = (at for at in last if encoded[at] & 0xC0 != 0x80)
    return os.fsdecode(encoded[: next(starts, room)]) + tail


def numbered(
    name: str, limit: int = NAME_MAX, is_taken: Callable[[str], bool] | None = None
) -> Iterator[str]:
    """``stem.ext``, ``stem~2.ext``, ``stem~3.ext`` and so on, without end, each within the limit.

    Args:
        is_taken: whether a name is in use. After the first few, the names that seem to be in use, by
            bisection, are passed over: the millionth picture of one name doesn't try a million names.
    """
    path = PurePath(name)
    stem, suffix = (path.stem, path.suffix) if len(os.fsencode(path.suffix)) <= _LONG_SUFFIX else (name, "")

    def at(number: int) -> str:
        return fit(stem, f"~{number}{suffix}", limit)

    yield fit(stem, suffix, limit)
    yield from map(at, range(2, _ONE_BY_ONE))
    yield from map(at, count(_ONE_BY_ONE if is_taken is None else _last_taken(at, is_taken)))


def _last_taken(at: Callable[[int], str], is_taken: Callable[[str], bool]) -> int:
    """A number that is taken and followed by a free one, or `_ONE_BY_ONE`; found by bisection."""
    low, high = _ONE_BY_ONE, 2 * _ONE_BY_ONE
    while is_taken(at(high)):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_taken(at(middle)) else (low, middle)
    return low
