"""The command line as typer knows it, read once for the manual page and the reference."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

from maskdrop.commands.app import app

EXIT_CODES = {
    "0": "Done. For the daemon: drained, everything in flight was finished.",
    "1": "Failed, or something was found. For the daemon: cut short, pictures stay in the inbox.",
    "2": "The command line can't be understood.",
    "75": "Another daemon has the inbox, or another batch the outbox; a cluster was in trouble; there is no "
    "room for a folder of the daemon; the folder "
    "for temporary files is full: try again later.",
    "78": "Can't run as configured; the message names key, value and remedy.",
    "129, 130, 143": "Ended by a hang-up, by Ctrl-C, by SIGTERM.",
}

FILES = {
    "/etc/maskdrop.toml": "The service's configuration; all keys with their explanations are in it.",
    "health.json": "Beside the inbox: how the daemon does, replaced every second.",
    "NAME.reason.json": "In quarantine, beside each picture: why it is there.",
}


@dataclass(frozen=True)
class Parameter:
    """An argument or option.

    Attributes:
        names: an argument's placeholder, or all names of an option.
        value: the placeholder of an option's value; "" for arguments and flags.
        text: what the help says, in whole sentences.
    """

    names: tuple[str, ...]
    value: str
    text: str
    is_option: bool


@dataclass(frozen=True)
class Command:
    """A command, or a group of them.

    Attributes:
        path: its name with those of its groups, such as ``maskdrop model show``.
        usage: the same with its options and arguments.
        paragraphs: of the help, each on one line.
    """

    path: str
    usage: str
    paragraphs: tuple[str, ...]
    parameters: tuple[Parameter, ...]


def program() -> Command:
    """maskdrop itself, with the options that stand before any command."""
    return _described(typer.main.get_command(app), "maskdrop")


def commands() -> Iterator[Command]:
    """Every command that is not hidden, those of groups too, in the order of ``--help``."""
    yield from _below(typer.main.get_command(app), "maskdrop")


def _below(group: Any, path: str) -> Iterator[Command]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _below(command, f"{path} {name}")
        else:
            yield _described(command, f"{path} {name}")


def _described(command: Any, path: str) -> Command:
    """A command's description. ``--help`` is left out, since every command has it."""
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    whole = tuple(" ".join(paragraph.split()) for paragraph in paragraphs)
    return Command(path, _usage(command, path), whole, tuple(map(_parameter, shown)))


def _usage(command: Any, path: str) -> str:
    words = [path, *(["[OPTIONS]"] if any(p.param_type_name == "option" for p in command.params) else [])]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = _placeholder(parameter) + ("..." if parameter.nargs == -1 else "")
            words.append(word if parameter.required else f"[{word}]")
    return " ".join(words)


def _parameter(parameter: Any) -> Parameter:
    text = " ".join(filter(None, [_sentence(parameter.help or ""), *_remarks(parameter)]))
    if parameter.param_type_name == "argument":
        return Parameter((_placeholder(parameter),), "", text, is_option=False)
    names = (*parameter.opts, *parameter.secondary_opts)
    return Parameter(names, "" if _is_flag(parameter) else _placeholder(parameter), text, is_option=True)


def _remarks(parameter: Any) -> Iterator[str]:
    if getattr(parameter, "multiple", False):
        yield "May be given several times."
    default = getattr(parameter.default, "value", parameter.default)
    if isinstance(default, str | int | float) and not isinstance(default, bool):
        yield f"Default: {default}."
    if parameter.required and parameter.param_type_name == "option":
        yield "Must be given."


def _is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False)) or parameter.name in (
        "install_completion",
        "show_completion",
    )


def _placeholder(parameter: Any) -> str:
    """What stands for a value: its own placeholder, or an argument's name, or an option's longest name."""
    if parameter.metavar:
        return str(parameter.metavar)
    names = [parameter.name] if parameter.param_type_name == "argument" else parameter.opts
    return str(max(names, key=len)).lstrip("-").upper().replace("_", "-")


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text.endswith((".", "?", "!")) else text + "."
