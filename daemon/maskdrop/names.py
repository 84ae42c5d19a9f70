"""File names: showing any of them on one line, and making new ones that fit.

Names are ``str`` as Python's os functions give them: bytes that are not UTF-8 become lone
surrogates, and go back to the same bytes when the name is used.
"""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import PurePath

NAME_MAX = 255
"""Longest file name in bytes on Linux (``NAME_MAX`` of limits.h)."""


_LONGEST_CHARACTER = 4
"""Bytes of UTF-8; all but the first have the bits 10 uppermost (RFC 3629, section 3)."""

_LONG_SUFFIX = 32
"""Bytes from which on what follows a name's last dot is no suffix, but part of the name."""


def printable(name: str | PurePath) -> str:
    """The name on one line of valid UTF-8: control characters and odd bytes escaped."""
    whole = str(name)
    if whole.isprintable():  # nearly every name: lone surrogates aren't printable
        return whole
    text = "".join(c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else _escape(c) for c in whole)
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def told_exactly(path: str) -> dict[str, str]:
    """A path as reports give it: printable, and where that differs from it, also its bytes in ``hex``."""
    shown = printable(path)
    return {"path": shown} if shown == path else {"path": shown, "hex": os.fsencode(path).hex()}


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def fit(stem: str, tail: str, limit: int = NAME_MAX) -> str:
    """``stem + tail``, the stem cut between two characters so that the name has at most ``limit`` bytes."""
    room, encoded = limit - len(os.fsencode(tail)), os.fsencode(stem)
    if len(encoded) <= room:
        return stem + tail
    last = range(room, max(-1, room - _LONGEST_CHARACTER), -1)
    starts = (at for at in last if encoded[at] & 0xC0 != 0x80)
    return os.fsdecode(encoded[: next(starts, room)]) + tail


def numbered(name: str, limit: int = NAME_MAX) -> Iterator[str]:
    """``stem.ext``, ``stem~2.ext``, ``stem~3.ext`` and so on, without end, each within the limit."""
    path = PurePath(name)
    stem, suffix = (path.stem, path.suffix) if len(os.fsencode(path.suffix)) <= _LONG_SUFFIX else (name, "")
    yield fit(stem, suffix, limit)
    for number in count(2):
        yield fit(stem, f"~{number}{suffix}", limit)
