"""The manual page, made from the command line's own help.

    python tools/man.py [FILE]      # default: docs/maskdrop.1; also `make man`

Every command, argument and option is on it, in the words of ``--help``. A test checks that it is current.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from command_line import EXIT_CODES, FILES, Command, commands, program
from maskdrop import __version__

PAGE = Path(__file__).parent.parent / "docs" / "maskdrop.1"


def page() -> str:
    """The whole page, in the man macros (groff_man(7))."""
    maskdrop = program()
    lines = [
        ".\\\" Made by tools/man.py from the command line's help: don't change it here.",
        f'.TH MASKDROP 1 "" "maskdrop {__version__}" "User Commands"',
        ".SH NAME",
        "maskdrop \\- " + escaped(maskdrop.paragraphs[0].rstrip(".")),
        ".SH SYNOPSIS",
        ".B maskdrop",
        "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        "A daemon watches an inbox, labels the parts of the faces in each picture, and keeps those wanted.",
        "Results land in an outbox, originals in an archive, broken pictures in quarantine with the reason.",
        "The other commands look after it, its folders and its network.",
        ".SH OPTIONS",
        *_parameters(maskdrop),
        ".SH COMMANDS",
        *_commands(),
        ".SH EXIT STATUS",
        *_terms(EXIT_CODES),
        ".SH FILES",
        *_terms(FILES),
    ]
    return "\n".join(lines) + "\n"


def _commands() -> Iterator[str]:
    """A sub-section for each command."""
    for command in commands():
        yield f".SS {escaped(command.usage)}"
        for number, paragraph in enumerate(command.paragraphs):
            yield from ([".PP"] if number else [])
            yield escaped(paragraph)
        yield from _parameters(command)


def _parameters(command: Command) -> Iterator[str]:
    """A paragraph for each argument and option."""
    for parameter in command.parameters:
        yield ".TP"
        if parameter.is_option:
            names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in parameter.names)
            yield names + (f" \\fI{escaped(parameter.value)}\\fR" if parameter.value else "")
        else:
            yield f".I {escaped(parameter.names[0])}"
        yield escaped(parameter.text)


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
