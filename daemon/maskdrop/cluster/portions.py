"""Inputs, and what becomes of them, a certain number at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from maskdrop.cluster.inputs import Input

T = TypeVar("T")


def sliced(things: Iterable[T], length: int) -> Iterator[list[T]]:
    """All things, in lists of ``length``; the last may be shorter."""
    waiting = iter(things)
    while some := list(islice(waiting, length)):
        yield some


def distinct(inputs: Iterable[Input]) -> list[Input]:
    """The first input of each path: Arrow lists an object ``a/`` as ``a`` too, and can't read it."""
    firsts: dict[str, Input] = {}
    for one in inputs:
        firsts.setdefault(one.path, one)
    return list(firsts.values())
