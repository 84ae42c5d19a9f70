"""Reading the configuration file, and turning every fault in it into one clear line."""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from maskdrop.config import DecodeSettings, ModelSettings, Settings, WorkerSettings
from maskdrop.config_values import Clash
from maskdrop.log import one_line
from maskdrop.names import at_home, printable

MOST_SHOWN = 500
"""Characters of a value that a message shows, enough for an address; paths are shown in full."""

_MOST_BYTES = 2**20
"""Of a configuration file: what is larger, or never ends, is none."""

_ALTERNATIVE = re.compile(r"auto|int|constrained-int|function-before\[.*")
"""What pydantic puts behind a key that may be one thing or another."""


class ConfigurationError(Exception):
    """The daemon can't run with this configuration. The message says problem and remedy, on one line.

    Attributes:
        problem: what is wrong, with key and value.
        remedy: what to do; empty where the problem says it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


def fault(key: str, value: object, problem: str, remedy: str) -> ConfigurationError:
    """One line in the form ``key = value: problem; remedy``."""
    shown = printable(str(value)) if isinstance(value, Path) else one_line(repr(value))
    if len(shown) > MOST_SHOWN and not isinstance(value, Path):
        shown = shown[:MOST_SHOWN] + "…"
    return ConfigurationError(f"{key} = {shown}: {one_line(problem)}", one_line(remedy))


def load_settings(file: Path | None, overrides: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Settings from a TOML file, if any, with overrides by section and key.

    Overrides that are None change nothing.

    Raises:
        ConfigurationError: the file can't be read, or a value can't be used.
    """
    values: dict[str, Any] = _read(file) if file else {}
    for section, changes in overrides.items():
        given = {key: value for key, value in changes.items() if value is not None}
        if given:
            table = values.setdefault(section, {})
            if not isinstance(table, dict):
                raise fault(section, table, "is not a table", f"write [{section}] and its keys below")
            table.update(given)
    for key in ("inbox", "outbox"):
        folders = values.get("folders", {})
        if isinstance(folders, dict) and key not in folders:
            raise fault(
                f"folders.{key}", None, "is not set", f"give --{key} FOLDER or set {key} below [folders]"
            )
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error) from error


def check_weights(weights: Path | None) -> None:
    """Check that the weights file can be read; inference workers check what is in it.

    Raises:
        ConfigurationError: the file can't be read.
    """
    if weights is None:
        return
    try:
        with weights.open("rb"):
            pass
    except OSError as error:
        remedy = "name a weights file, or leave it out"
        raise fault("model.weights", weights, f"can't be read ({error.strerror})", remedy) from error


class _ModelTable(BaseModel):
    model: ModelSettings = ModelSettings()


class DecodingTables(BaseModel):
    """The tables that say what counts as a picture, and how long and how often to try one."""

    decode: DecodeSettings = DecodeSettings()
    workers: WorkerSettings = WorkerSettings()


def load_model_settings(file: Path | None, changes: Mapping[str, Any]) -> ModelSettings:
    """The ``[model]`` table of a TOML file, if any, with changes by key; other tables are ignored.

    Raises:
        ConfigurationError: the file can't be read, or a value can't be used.
    """
    table = (_read(file) if file else {}).get("model", {})
    if not isinstance(table, dict):
        raise fault("model", table, "is not a table", "write [model] and its keys below")
    return _tables({"model": {**table, **changes}}, _ModelTable).model


def load_decoding_tables(file: Path | None) -> DecodingTables:
    """The tables ``[decode]`` and ``[workers]`` of a TOML file, if any; other tables are ignored.

    Raises:
        ConfigurationError: the file can't be read, or a value can't be used.
    """
    return _tables(_read(file) if file else {}, DecodingTables)


Tables = TypeVar("Tables", bound=BaseModel)


def _tables(values: Mapping[str, Any], model: type[Tables]) -> Tables:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(error) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        with at_home(file).open("rb") as content:
            text = content.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise fault("--config", file, f"is larger than {_MOST_BYTES:,} bytes", "name a TOML file")
        return tomllib.loads(text.decode("utf-8-sig"))  # some editors, such as Notepad, begin with a mark
    except OSError as error:
        raise fault("--config", file, error.strerror or str(error), "name a readable TOML file") from error
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise fault("--config", file, f"is not UTF-8 in line {line}", "save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise fault("--config", file, f"is not TOML: {error}", "mend that line") from error


def _explain(error: ValidationError) -> ConfigurationError:
    first = error.errors(include_url=False)[0]
    key = ".".join(part for part in map(str, first["loc"]) if not _ALTERNATIVE.fullmatch(part))
    message, value = first["msg"].removeprefix("Value error, "), first["input"]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, Clash):
        key, value = f"{key}.{cause.key}" if key else cause.key, cause.value
    if first["type"] == "extra_forbidden":
        return _unknown_key(key, first["loc"], value)
    if first["type"] == "value_error" and "; " in message:
        problem, _, remedy = message.partition("; ")
        return fault(key, value, problem, remedy)
    if first["type"] == "model_type":
        return fault(key, value, "is not a table", f"write [{key}] and its keys below")
    return fault(key, value, _lowered(message), "see etc/maskdrop.toml for what it may be")


def _unknown_key(key: str, location: tuple[int | str, ...], value: object) -> ConfigurationError:
    known = _keys_of(location[:-1])
    near = get_close_matches(str(location[-1]), known, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return fault(key, value, "unknown key", remedy)


def _keys_of(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Settings
    for name in location:
        field = section.model_fields.get(str(name))
        if (
            field is None
            or not isinstance(field.annotation, type)
            or not issubclass(field.annotation, BaseModel)
        ):
            return []
        section = field.annotation
    return list(section.model_fields)


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]
