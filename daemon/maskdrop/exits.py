"""How commands end: with an exit code, and one line on standard error."""

import os
import sys
from typing import NoReturn

import typer

from maskdrop.exit_codes import EX_CONFIG, EX_FAILED, EX_TEMPFAIL

__all__ = ["EX_CONFIG", "EX_FAILED", "EX_TEMPFAIL", "end_with"]

SIGNAL_EXIT = 128
"""What a shell adds to a signal's number to make an exit code (bash(1))."""


def end_with(message: str, code: int) -> NoReturn:
    """Write the message, whatever bytes are in it, and end the command."""
    line = os.fsencode(f"maskdrop: {message}\n").decode("utf-8", "backslashreplace")
    sys.stderr.write(line)
    raise typer.Exit(code)
