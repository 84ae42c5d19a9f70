"""How large the numbers between a network's layers become: 8-bit codes must reach as far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.torchvision_resnet import BasicBlock


@dataclass(frozen=True)
class Ranges:
    """The largest number that each module took and returned, call by call."""

    given: dict[nn.Module, list[float]] = field(default_factory=dict)
    made: dict[nn.Module, list[float]] = field(default_factory=dict)

    def note(self, module: nn.Module, given: tuple[Any, ...], made: Tensor) -> None:
        """Note a call, as a forward hook; see `torch.nn.Module.register_forward_hook`."""
        self.given.setdefault(module, []).append(float(given[0].max()))
        self.made.setdefault(module, []).append(float(made.max()))


def ranges_of(network: BiSeNet, run: Callable[[], object]) -> Ranges:
    """The ranges between the large convolutions of a network while it runs once. One thread runs it, so that
    the ranges, and with them every picture's labels, don't depend on the number of threads."""
    context, ranges = network.cp, Ranges()
    relus = [module.relu for module in network.modules() if isinstance(module, BasicBlock)]
    heads = [context.arm32.conv, context.conv_head32, context.conv_head16]
    modules = [context.resnet.maxpool, *relus, *heads, network.ffm]
    hooks = [module.register_forward_hook(ranges.note) for module in modules]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run()
    finally:
        torch.set_num_threads(threads)
        for hook in hooks:
            hook.remove()
    return ranges
