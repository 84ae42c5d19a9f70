"""Globs: which paths they match, and below which folder all of these lie."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from maskdrop.config_file import fault

_WILD = re.compile(r"[*?\[]")

Matches = Callable[[str], bool]


@dataclass(frozen=True)
class Glob:
    """A glob taken apart.

    Attributes:
        base: the folder that comes before its first wildcard.
        matches: whether the glob matches a path below ``base``.
        is_meant: whether a name directly in ``base`` matches, or may lead to matches; None: any may.
    """

    pattern: str
    base: str
    matches: Matches
    is_meant: Matches | None


def is_glob(named: str) -> bool:
    """Whether it has a wildcard."""
    return _WILD.search(named) is not None


def split_glob(pattern: str) -> Glob:
    """A glob taken apart. ``**`` is any number of folders.

    Raises:
        ConfigurationError: it is no valid glob.
    """
    parts = pattern.split("/")
    wild = next(index for index, part in enumerate(parts) if is_glob(part))
    expression = ""
    for index, part in enumerate(parts[wild:], start=wild):
        is_last = index == len(parts) - 1
        if part == "**":
            expression += ".*" if is_last else "(?:[^/]+/)*"
        else:
            expression += _one_name(part) + ("" if is_last else "/")
    try:
        compiled = re.compile(expression, re.DOTALL)
        first = None if parts[wild] == "**" else re.compile(_one_name(parts[wild]), re.DOTALL)
    except re.error as error:
        remedy = "mend it; what is in brackets is one of [ab], [a-z] or [!ab]"
        raise fault("IN", pattern, f"is no glob ({error.msg})", remedy) from error
    return Glob(
        pattern,
        "/".join(parts[:wild]) or "/",
        lambda path: compiled.fullmatch(path) is not None,
        None if first is None else lambda name: first.fullmatch(name) is not None,
    )


def _one_name(part: str) -> str:
    """A glob of one name as an expression; wildcards never stand for a slash."""
    known = {"*": "[^/]*", "?": "[^/]"}
    expression = ""
    for piece in re.split(r"(\[[^\]]+\]|\*|\?)", part):
        if piece.startswith("[") and piece.endswith("]"):
            expression += _one_of(piece[1:-1])
        else:
            expression += known.get(piece) or re.escape(piece)
    return expression


def _one_of(characters: str) -> str:
    """Characters in brackets as an expression: literal, except in ranges and for a leading ``!`` or ``^``."""
    is_not = "^" if characters[0] in "!^" else ""
    escaped = re.sub(r"[\[\\^&|~]|(?<=.)-(?=-)", r"\\\g<0>", characters[len(is_not) :])
    return f"(?!/)[{is_not}{escaped}]" if escaped else "[^/]"
