"""Finding the scores in what a network answers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def first_tensor(answer: Any) -> Tensor:
    """The scores in a network's answer: itself, or the first of several, or of those with names.

    Public face-parsing networks give three (main head first), torchvision's a dict with ``out`` first.

    Raises:
        TypeError: there is no tensor.
    """
    if isinstance(answer, Mapping) and answer:
        answer = next(iter(answer.values()))
    elif isinstance(answer, tuple | list) and answer:
        answer = answer[0]
    if not isinstance(answer, Tensor):
        raise TypeError(f"it answers with {type(answer).__name__}, not with a tensor")
    return answer
