"""Imports torchvision's ResNet, and nothing else of torchvision.

``import torchvision`` loads detection operators and, with them, torch's compiler: a second of
every start, for nothing that a ResNet needs. It also fails where the operators were built for
another torch, as with a CPU build of torch beside the package index's torchvision
(https://github.com/pytorch/vision/issues/9085). So while the module is imported, empty packages
stand in for the two above it; all are forgotten afterwards.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_PACKAGE = "torchvision"
_ABOVE = (_PACKAGE, f"{_PACKAGE}.models")


def _stand_in(name: str, folder: str) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = [folder]
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    return module


def _stand_ins() -> dict[str, ModuleType]:
    """Empty packages by name; none where torchvision is missing, or imported already."""
    if _PACKAGE in sys.modules:
        return {}
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return {}  # the import below says what is missing
    root = spec.submodule_search_locations[0]
    return {name: _stand_in(name, root + name.removeprefix(_PACKAGE).replace(".", "/")) for name in _ABOVE}


_standing_in = _stand_ins()
sys.modules.update(_standing_in)
try:
    from torchvision.models.resnet import BasicBlock, ResNet
finally:
    if _standing_in:
        for _name in [name for name in sys.modules if name.split(".")[0] == _PACKAGE]:
            del sys.modules[_name]

__all__ = ["BasicBlock", "ResNet"]
