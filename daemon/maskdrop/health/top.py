"""``maskdrop top``: a health file watched in a terminal, near or over ssh."""

import contextlib
import io
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

from maskdrop.health.file import ODD, HealthUnreadable, read_health
from maskdrop.health.frame import draw, draw_absence

REFRESH_S = 1.0
"""Seconds between two looks at the health file; by default the daemon writes it as often."""

SVG_WIDTH, SVG_HEIGHT = 110, 32
"""Columns and lines of a screen that is written as SVG."""

_LINES_AT_ONCE = 40
_CHARACTERS = 6
"""Index of the special characters in termios's list of modes."""

_END_KEYS = b"qQ\x03\x04"


def watch(file: Path) -> bool:
    """Show the health file until q or Ctrl-C; only once if there is no terminal.

    Returns:
        Whether there was a health file at the end.
    """
    console = _console()
    if not (sys.stdout.isatty() and console.is_interactive):
        return print_once(file)
    there = False
    with (
        contextlib.suppress(KeyboardInterrupt),
        _wakes() as wakes,
        _keys() as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            screen, there = picture_of(file, console.width, console.height)
            live.update(screen, refresh=True)
            if _is_ended(keys, wakes):
                break
    return there


def print_once(file: Path) -> bool:
    """Print one screen. Returns whether there is a health file."""
    console = _console()
    screen, there = picture_of(file, console.width, _LINES_AT_ONCE)
    console.print(screen)
    return there


def write_svg(file: Path, target: Path) -> bool:
    """Write one screen as an SVG that needs nothing from elsewhere to be shown.

    Returns:
        Whether there is a health file.

    Raises:
        OSError: the target can't be written.
    """
    console = Console(
        record=True, file=io.StringIO(), width=SVG_WIDTH, force_terminal=True, highlight=False, markup=False
    )
    screen, there = picture_of(file, SVG_WIDTH, SVG_HEIGHT)
    console.print(screen)
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="maskdrop top"), flags=re.DOTALL)
    drawn = drawn.replace("<svg ", '<svg xml:space="preserve" ', 1)  # leading blanks keep columns in line
    target.write_text(drawn, encoding="utf-8")
    return there


def picture_of(file: Path, width: int, height: int) -> tuple[RenderableType, bool]:
    """The screen for what the health file says now, and whether there is one."""
    try:
        return draw(read_health(file), width, height), True
    except HealthUnreadable as error:
        return draw_absence(str(error)), False
    except ODD:
        return draw_absence(f"{file}: not a health file of this version of maskdrop"), False


def _console() -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names may have characters that the terminal lacks
    return Console(highlight=False, markup=False)


def _is_ended(keys: int | None, wakes: int) -> bool:
    """Wait for a key, a new window size, or the next look at the file; return whether a key asks to end."""
    ready, _, _ = select.select([wakes] if keys is None else [wakes, keys], [], [], REFRESH_S)
    if wakes in ready:
        os.read(wakes, 4096)
    if keys is None or keys not in ready:
        return False
    typed = os.read(keys, 4096)
    return not typed or any(key in typed for key in _END_KEYS)  # nothing: the terminal was closed


@contextlib.contextmanager
def _wakes() -> Iterator[int]:
    """A descriptor that becomes readable when the window changes its size; SIGTERM ends as Ctrl-C does."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    handlers = {
        signal.SIGWINCH: signal.signal(signal.SIGWINCH, lambda number, frame: None),
        # Set for Ctrl-C too: a shell has programs that it starts in the background ignore it.
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.default_int_handler),
    }
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """Standard input, set so that keys come at once and aren't shown; None if it is no terminal."""
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        modes = termios.tcgetattr(descriptor)
        modes[_CHARACTERS][termios.VSUSP] = b"\0"  # Ctrl-Z would leave the shell with this screen and modes
        termios.tcsetattr(descriptor, termios.TCSANOW, modes)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
