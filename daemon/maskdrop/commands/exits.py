"""What commands say, and how they end: with an exit code, and one line on standard error."""

import os
import signal
import sys
from threading import Thread
from typing import NoReturn

import typer

from maskdrop.exit_codes import EX_CONFIG, EX_FAILED, EX_OK, EX_TEMPFAIL, SIGNAL_EXIT

__all__ = [
    "EX_CONFIG",
    "EX_FAILED",
    "EX_OK",
    "EX_TEMPFAIL",
    "SIGNAL_EXIT",
    "die_when_told",
    "end_with",
    "lose_output",
    "say",
    "stop_telling",
    "tell",
]


def end_with(message: str, code: int) -> NoReturn:
    """Write the message, whatever bytes are in it, and end the command."""
    say(message)
    raise typer.Exit(code)


def die_when_told(code: int) -> None:
    """As a container's first process, end at SIGTERM until something else handles it: nothing has begun yet.

    Such a process gets only signals that it handles, and a command's own handler comes after imports that
    take seconds, and after a look at places that may not answer. Python's handlers wait until a library's
    function returns; the thread doesn't.
    """
    if os.getpid() != 1:
        return

    def die(*_: object) -> NoReturn:
        os._exit(code)

    def watch() -> None:
        while number := os.read(reading, 1):
            if number[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is die:
                die()

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, die)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    Thread(target=watch, name="early signals", daemon=True).start()


def say(message: str) -> None:
    """Write the message, whatever bytes are in it."""
    line = os.fsencode(f"maskdrop: {message}\n").decode("utf-8", "backslashreplace")
    sys.stderr.write(line)


def tell(line: str) -> None:
    """Write a line to standard output, at once. Neither a reader that has seen enough, such as ``head``, nor
    a full disk ends the command."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        lose_output(error, "; going on without it")


def lose_output(error: OSError, consequence: str = "") -> bool:
    """Write nothing more to standard output after this error; say so, unless its reader has left.

    Returns:
        Whether the error is a fault: a reader that left is none.
    """
    stop_telling()
    if isinstance(error, BrokenPipeError):
        return False
    say(f"standard output: {error.strerror}{consequence}")
    return True


def stop_telling() -> None:
    """Discard what is still written to standard output, as nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
