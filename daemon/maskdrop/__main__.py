"""Entry point of the ``maskdrop`` command and of ``python -m maskdrop``.

Spawned workers import this module again as their main module, so it imports nothing
of maskdrop until `main` is called.
"""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator

_STARTS_PROCESSES = frozenset({"run", "batch", "check"})
"""Commands whose processes go to the folder that the command was started in."""

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
    """Open standard input, output and error if they were closed at the start (``>&-``): a pipe or picture
    would get their numbers, and Python has no file object for them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _write_whatever_is_in_names() -> None:
    """Escape letters that the locale lacks: no command is to end because of a picture's name."""
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
    """End if the folder that this was started in is gone: relative paths lead nowhere then, and libraries of
    PyTorch's end the process without a message. Nor can a worker be started from a folder that may not be
    entered, such as root's home after ``sudo -u maskdrop``."""
    from maskdrop.exit_codes import EX_CONFIG

    try:
        os.getcwd()
        if not os.access(".", os.X_OK) and _STARTS_PROCESSES.intersection(sys.argv[1:2]):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        where = f"the folder that this was started in: {error.strerror}"
        other = "that may be entered" if isinstance(error, PermissionError) else "that is there"
        sys.stderr.write(f"maskdrop: {where}; go to one {other} (cd)\n")
        sys.exit(EX_CONFIG)


def _refuse_what_is_empty() -> None:
    """Refuse empty arguments: an empty path would be the folder that this was started in."""
    from maskdrop.exit_codes import EX_USAGE

    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        if not word or (name.startswith("--") and equals and not value):
            shown = word or "''"
            sys.stderr.write(f"maskdrop: {shown}: is empty; is a variable of the shell not set?\n")
            sys.exit(EX_USAGE)


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process without a traceback of whatever is being imported."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


def _write_the_rest() -> None:
    """Flush what was printed, while an error can still be reported in one line."""
    from maskdrop.commands.exits import EX_FAILED, lose_output

    try:
        sys.stdout.flush()
    except OSError as error:
        if lose_output(error):
            sys.exit(EX_FAILED)


if __name__ == "__main__":
    main()
