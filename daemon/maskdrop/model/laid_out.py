"""Weights in the order that convolutions want."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def in_format(module: _Module, memory_format: torch.memory_format) -> _Module:
    """The module itself, with its four-dimensional weights now in a memory format."""
    untyped: Any = module  # the types of PyTorch 2.13 lack this argument, those of 2.15 have it
    untyped.to(memory_format=memory_format)
    return module


class LaidOutWeight:
    """Weights that are laid out when first used, for the input at that time. Inputs of other shapes work too,
    but oneDNN may lay the weights out again for each. Where several threads share a picture, oneDNN wants
    another order than for one thread: each order is made once, and the last one replaces the plain weights.

    Args:
        plain: the weights as PyTorch keeps them.
        lay_out: returns them in the order for an input.
    """

    def __init__(self, plain: Tensor, lay_out: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._plain: Tensor | None = plain
        self._lay_out = lay_out
        self._orders: dict[bool, Tensor] = {}
        self._most_orders = 1 if torch.get_num_threads() == 1 else 2

    def read_by(self, x: Tensor) -> Tensor:
        """The weights in the order for this input and the current number of threads."""
        is_shared = torch.get_num_threads() > 1
        plain = self._plain  # read before the orders: another lane may be making the last one
        if (known := self._orders.get(is_shared)) is not None:
            return known
        if plain is None:  # laid out for one thread only, and now there are more
            return self._orders[not is_shared]
        weight = self._lay_out(plain, x)
        self._orders[is_shared] = weight
        if len(self._orders) == self._most_orders:
            self._plain = None
        return weight
