"""Weights in the order in which convolutions want them."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def in_format(module: _Module, memory_format: torch.memory_format) -> _Module:
    """The module itself, its weights of four dimensions now in a memory format."""
    untyped: Any = module  # the types of PyTorch 2.13 don't know of this, those of 2.15 do
    untyped.to(memory_format=memory_format)
    return module


class LaidOutWeight:
    """Weights that are laid out when they are first wanted, for what is read then; what has another shape is
    computed too, but they may be laid out anew for it. Where several threads share a picture oneDNN wants
    another order than for one thread: each is made once, and the plain weights go with the last.

    Args:
        plain: as PyTorch keeps them.
        lay_out: makes an order of them, for an input.
    """

    def __init__(self, plain: Tensor, lay_out: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._plain: Tensor | None = plain
        self._lay_out = lay_out
        self._orders: dict[bool, Tensor] = {}
        self._most_orders = 1 if torch.get_num_threads() == 1 else 2

    def read_by(self, x: Tensor) -> Tensor:
        """The order for this input and the threads that there are now."""
        is_shared = torch.get_num_threads() > 1
        plain = self._plain  # looked at before the others are: another lane may be laying them out
        if (known := self._orders.get(is_shared)) is not None:
            return known
        if plain is None:  # there are more threads than at first
            return self._orders[not is_shared]
        weight = self._lay_out(plain, x)
        self._orders[is_shared] = weight
        if len(self._orders) == self._most_orders:
            self._plain = None
        return weight
