"""The manual page, made from the command line's own help.

    python tools/man.py [FILE]      # default: docs/maskdrop.1; also `make man`

Every command, argument and option is on it, with the words of ``--help``. A test compares.
"""

import argparse
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from maskdrop import __version__
from maskdrop.cli import app

PAGE = Path(__file__).parent.parent / "docs" / "maskdrop.1"

EXIT_CODES = {
    "0": "Done. For the daemon: drained, everything in flight was finished.",
    "1": "Failed, or something was found. For the daemon: cut short, pictures stay in the inbox.",
    "2": "The command line can't be understood.",
    "75": "Another daemon has the inbox, or another batch the outbox; try again later.",
    "78": "Can't run as configured; the message names key, value and remedy.",
    "130, 143": "Ended by Ctrl-C, by SIGTERM.",
}

FILES = {
    "/etc/maskdrop.toml": "The service's configuration; all keys with their explanations are in it.",
    "health.json": "Beside the inbox: how the daemon does, replaced every second.",
    "NAME.reason.json": "In quarantine, beside each picture: why it is there.",
}


def page() -> str:
    """The whole page, in the man macros (groff_man(7))."""
    command = typer.main.get_command(app)
    lines = [
        ".\\\" Made by tools/man.py from the command line's help: don't change it here.",
        f'.TH MASKDROP 1 "" "maskdrop {__version__}" "User Commands"',
        ".SH NAME",
        "maskdrop \\- " + escaped(_text(command)[0].rstrip(".")),
        ".SH SYNOPSIS",
        ".B maskdrop",
        "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        "A daemon watches an inbox, labels the parts of the faces in each picture, and keeps those wanted.",
        "Results land in an outbox, originals in an archive, broken pictures in quarantine with the reason.",
        "The other commands look after it, its folders and its network.",
        ".SH OPTIONS",
        *_parameters(command),
        ".SH COMMANDS",
        *_commands(command, "maskdrop"),
        ".SH EXIT STATUS",
        *_terms(EXIT_CODES),
        ".SH FILES",
        *_terms(FILES),
    ]
    return "\n".join(lines) + "\n"


def _commands(group: Any, path: str) -> Iterator[str]:
    """A sub-section for each command, those of groups too, in the order of ``--help``."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        whole = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, whole)
            continue
        yield f".SS {escaped(_usage(command, whole))}"
        for number, paragraph in enumerate(_text(command)):
            yield from ([".PP"] if number else [])
            yield escaped(paragraph)
        yield from _parameters(command)


def _usage(command: Any, path: str) -> str:
    words = [path, *(["[OPTIONS]"] if any(p.param_type_name == "option" for p in command.params) else [])]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = _placeholder(parameter) + ("..." if parameter.nargs == -1 else "")
            words.append(word if parameter.required else f"[{word}]")
    return " ".join(words)


def _parameters(command: Any) -> Iterator[str]:
    """A paragraph for each argument and option; ``--help`` is everywhere and so left out."""
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        yield ".TP"
        if parameter.param_type_name == "argument":
            yield f".I {escaped(_placeholder(parameter))}"
        else:
            names = ", ".join(
                f"\\fB{escaped(name)}\\fR" for name in [*parameter.opts, *parameter.secondary_opts]
            )
            value = "" if _is_flag(parameter) else f" \\fI{escaped(_placeholder(parameter))}\\fR"
            yield names + value
        yield escaped(" ".join(filter(None, [_sentence(parameter.help or ""), *_remarks(parameter)])))


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
    """What stands for a value: an argument's name, or an option's longest."""
    names = [parameter.name] if parameter.param_type_name == "argument" else parameter.opts
    return str(max(names, key=len)).lstrip("-").upper().replace("_", "-")


def _text(command: Any) -> list[str]:
    """The help's paragraphs, each on one line."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return [" ".join(paragraph.split()) for paragraph in paragraphs]


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text.endswith((".", "?", "!")) else text + "."


def _terms(terms: dict[str, str]) -> Iterator[str]:
    for term, meaning in terms.items():
        yield from (".TP", f".B {escaped(term)}", escaped(meaning))


def escaped(text: str) -> str:
    """Text that troff shows as it is (groff_char(7))."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")
    return "\\&" + text if text.startswith(".") else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=PAGE)
    parser.parse_args().file.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
