"""What a value of the configuration may be, whatever its key, and the fault of one beside others."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, Strict


class Clash(ValueError):
    """A value that its table, or the whole configuration, finds wrong beside others.

    Attributes:
        key: of the value, from that table on.
        value: as it is set, or by default.
    """

    def __init__(self, key: str, value: object, message: str) -> None:
        super().__init__(message)
        self.key, self.value = key, value


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("no path has a NUL in it; take it out")
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{error}; name the folder in full") from error
    except FileNotFoundError as error:
        problem = "is relative, and the folder that maskdrop was started in is gone"
        raise ValueError(f"{problem}; name it in full") from error


def _readable(mode: str) -> str:
    """Refuse modes that keep maskdrop from reading its results again, to see which pictures they are of."""
    if not int(mode, 8) & 0o400:
        raise ValueError("maskdrop itself couldn't read its results; let their owner, as in 0600")
    return mode


def _named(value: object) -> object:
    if value == "":
        raise ValueError("is empty; name it, or leave the key out")
    return value


def _number(value: object) -> object:
    """Refuse true, which Python takes for 1, and text, even if it spells a number."""
    if isinstance(value, bool | str):
        raise ValueError("is neither an integer nor a fraction; see etc/maskdrop.toml for what it may be")
    return value


Folder = Annotated[Path, BeforeValidator(_named), AfterValidator(_absolute)]
Permissions = Annotated[str, Field(pattern=r"^0?[0-7]{3}$"), AfterValidator(_readable)]
Switch = Annotated[bool, Strict()]
NUMBER = BeforeValidator(_number)
"""Stands last in an integer's or a fraction's annotation, behind its bounds."""
