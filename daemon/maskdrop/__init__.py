"""maskdrop: drop a photograph into a folder, get the face cut out.

In Python, without a daemon: ``from maskdrop import Parser``; see docs/python.md.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_FOUND_IN = {
    "Parser": "maskdrop.parse",
    "Parsed": "maskdrop.parse",
    "BrokenPicture": "maskdrop.decoding",
    "ConfigurationError": "maskdrop.config_file",
    "WeightsError": "maskdrop.model.errors",
}
"""Names that are imported only when asked for: some import PyTorch, which takes seconds. Their types are in
``__init__.pyi``."""


def __getattr__(name: str) -> Any:
    if name not in _FOUND_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FOUND_IN[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FOUND_IN])
