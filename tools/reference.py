"""The reference in docs/reference, made from the code: nothing in it is written by hand.

    python tools/reference.py [FOLDER]      # default: docs/reference; also `make reference`

Command line, configuration, health file, metrics, exit codes, journal events and Python classes, in the
words of the code's own help and docstrings. A test checks that the pages are current.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import reference_code
import reference_configuration
from command_line import Command, commands, program
from markdown_text import cell, joined, table

FOLDER = Path(__file__).parent.parent / "docs" / "reference"


def command_line_page() -> str:
    every = list(commands())
    first = [[f"[`{c.path}`](#{anchor(c.path)})", cell(c.paragraphs[0])] for c in every]
    introduction = """\
Every command, argument and option, in the words of `--help`. The manual page, `docs/maskdrop.1`, says the
same. What commands end with: [exit codes](exit-codes.md)."""
    pieces = ["# The command line", introduction, table(["Command", "What it does"], first)]
    for command in every:
        pieces += described(command)
    return joined([*pieces, "## maskdrop", *parameters(program())])


def described(command: Command) -> Iterator[str]:
    yield f"## {command.path}"
    yield f"```text\n{command.usage}\n```"
    yield from command.paragraphs
    yield from parameters(command)


def parameters(command: Command) -> Iterator[str]:
    """A table of the arguments and options, if there are any."""
    rows = []
    for parameter in command.parameters:
        names = ", ".join(f"`{name}`" for name in parameter.names)
        rows.append([f"{names} *{parameter.value}*" if parameter.value else names, cell(parameter.text)])
    if rows:
        yield table(["Argument, option", ""], rows)


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


PAGES: Mapping[str, Callable[[], str]] = {
    "command-line.md": command_line_page,
    "configuration.md": reference_configuration.page,
    "health-file.md": reference_code.health_page,
    "metrics.md": reference_code.metrics_page,
    "exit-codes.md": reference_code.exit_codes_page,
    "journal-events.md": reference_code.journal_page,
    "python-classes.md": reference_code.python_page,
}


def write(folder: Path) -> None:
    """All pages, into a folder that is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
