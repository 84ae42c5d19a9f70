"""A network's answer: finding the scores in it, and checking that they are scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskdrop.config import ModelSettings
from maskdrop.model.errors import WeightsError

DAMAGED = "answers NaN or infinity; its weights are damaged: get it anew"


def first_tensor(answer: Any) -> Tensor:
    """The scores in a network's answer: the answer itself, or its first entry where it is a list or a dict.

    Public face-parsing networks give three (main head first), torchvision's a dict with ``out`` first.

    Raises:
        TypeError: the answer, or its first entry, is no tensor.
    """
    if isinstance(answer, Mapping) and answer:
        answer = next(iter(answer.values()))
    elif isinstance(answer, tuple | list) and answer:
        answer = answer[0]
    if not isinstance(answer, Tensor):
        raise TypeError(f"it answers with {type(answer).__name__}, not with a tensor")
    return answer


def check_scores(scores: Tensor, path: Path, settings: ModelSettings) -> None:
    """Check that a network answers one picture with one finite score for each class and pixel.

    Args:
        path: the network's file, for messages.

    Raises:
        WeightsError: it doesn't; the message says what it answers, and the remedy.
    """
    side, classes = settings.input_size, settings.classes
    shape = tuple(scores.shape)
    if len(shape) == 4 and shape[1] != len(classes) and shape[2:] == (side, side):
        problem = f"answers {shape[1]} classes, but model.classes names {len(classes)}"
        raise WeightsError(f"{path}: {problem}; name each of its classes there")
    if shape != (1, len(classes), side, side):
        problem = f"answers {shape}, not (1, {len(classes)}, {side}, {side})"
        raise WeightsError(f"{path}: {problem}; give a network that scores each class and pixel")
    if not bool(torch.isfinite(scores).all()):
        raise WeightsError(f"{path}: {DAMAGED}")
