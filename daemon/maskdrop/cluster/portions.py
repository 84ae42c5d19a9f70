"""Inputs, and what becomes of them, so many at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from maskdrop.cluster.inputs import Input

T = TypeVar("T")


def sliced(things: Iterable[T], length: int) -> Iterator[list[T]]:
    """All of them, so many at a time."""
    waiting = iter(things)
    while some := list(islice(waiting, length)):
        yield some


def distinct(inputs: Iterable[Input]) -> list[Input]:
    """Each path once, as it came first: Arrow lists the object ``a/`` as ``a`` too, and can't read it."""
    firsts: dict[str, Input] = {}
    for one in inputs:
        firsts.setdefault(one.path, one)
    return list(firsts.values())
