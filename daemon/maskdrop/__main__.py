"""Entry point of the ``maskdrop`` command and of ``python -m maskdrop``.

Spawned workers import this module again as their main module, so it imports nothing
of maskdrop's until it is called.
"""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator

_MOST_GATHERED = 2**20
"""Bytes of standard output, more than a health file has. Reports may be larger, and see to their faults."""


def main() -> None:
    _open_what_is_closed()
    _write_whatever_is_in_names()
    _gather_what_is_printed()
    _have_a_folder()
    _refuse_what_is_empty()
    with _ended_by_ctrl_c():
        from maskdrop.commands.app import app
    try:
        app()
    finally:
        _write_the_rest()


def _open_what_is_closed() -> None:
    """Standard input, output and error, of which whoever starts this may have closed any (``>&-``): a pipe or
    picture would get its number, and Python has no file for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _write_whatever_is_in_names() -> None:
    """Also what the locale has no letters for: no command is to end for a picture's name."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    if sys.stdout.errors == "strict" or sys.stdout.encoding.lower() not in ("utf-8", "utf8"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _gather_what_is_printed() -> None:
    """So that its faults come when it is flushed, and are told in one line. Without this, what is larger than
    Python's buffer would fail anywhere, and everything where PYTHONUNBUFFERED is set, as in containers."""
    told = sys.stdout
    if isinstance(told, io.TextIOWrapper) and not told.isatty():
        sys.stdout = os.fdopen(told.fileno(), "w", _MOST_GATHERED, told.encoding, told.errors, closefd=False)


def _have_a_folder() -> None:
    """End where the folder that this was started in is gone: there are no relative paths, and what PyTorch is
    made of ends a process there without saying so."""
    from maskdrop.exit_codes import EX_CONFIG

    try:
        os.getcwd()
    except OSError as error:
        where = f"the folder that this was started in: {error.strerror}"
        sys.stderr.write(f"maskdrop: {where}; go to one that is there (cd)\n")
        sys.exit(EX_CONFIG)


def _refuse_what_is_empty() -> None:
    """A path that is empty would be the folder that this was started in."""
    from maskdrop.exit_codes import EX_USAGE

    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        if not word or (name.startswith("--") and equals and not value):
            shown = word or "''"
            sys.stderr.write(f"maskdrop: {shown}: is empty; is a variable of the shell not set?\n")
            sys.exit(EX_USAGE)


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Without a traceback of whatever is being imported."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


def _write_the_rest() -> None:
    """What is printed, while its faults can still be told in one line."""
    from maskdrop.commands.exits import EX_FAILED, lose_output

    try:
        sys.stdout.flush()
    except OSError as error:
        if lose_output(error):
            sys.exit(EX_FAILED)


if __name__ == "__main__":
    main()
