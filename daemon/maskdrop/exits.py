"""How commands end: exit codes, and one line on standard error."""

import os
import sys
from typing import NoReturn

import typer

EX_FAILED, EX_TEMPFAIL, EX_CONFIG = 1, 75, 78
"""Exit codes: failed, and of sysexits.h: try again later; can't run as configured."""

SIGNAL_EXIT = 128
"""What a shell adds to a signal's number to make an exit code (bash(1))."""


def end_with(message: str, code: int) -> NoReturn:
    """Write the message, whatever bytes are in it, and end the command."""
    line = os.fsencode(f"maskdrop: {message}\n").decode("utf-8", "backslashreplace")
    sys.stderr.write(line)
    raise typer.Exit(code)
