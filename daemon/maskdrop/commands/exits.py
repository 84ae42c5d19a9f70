"""What commands say, and how they end: with an exit code, and one line on standard error."""

import os
import sys
from typing import NoReturn

import typer

from maskdrop.exit_codes import EX_CONFIG, EX_FAILED, EX_OK, EX_TEMPFAIL, SIGNAL_EXIT

__all__ = [
    "EX_CONFIG",
    "EX_FAILED",
    "EX_OK",
    "EX_TEMPFAIL",
    "SIGNAL_EXIT",
    "end_with",
    "say",
    "stop_telling",
    "tell",
]


def end_with(message: str, code: int) -> NoReturn:
    """Write the message, whatever bytes are in it, and end the command."""
    say(message)
    raise typer.Exit(code)


def say(message: str) -> None:
    """Write the message, whatever bytes are in it."""
    line = os.fsencode(f"maskdrop: {message}\n").decode("utf-8", "backslashreplace")
    sys.stderr.write(line)


def tell(line: str) -> None:
    """Write a line to standard output, at once. A reader that has seen enough, such as ``head``, ends nothing
    that is being done, nor does a full disk."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        stop_telling()
    except OSError as error:
        stop_telling()
        say(f"standard output: {error.strerror}; going on without it")


def stop_telling() -> None:
    """Nobody reads standard output any more: what is still to be written there goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
