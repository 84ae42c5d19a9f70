"""How far a command is: a bar on standard error where a terminal can draw it, else a line now and then."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol


class Show(Protocol):
    """Takes how many are done, of how many (None: not known yet), and a few words on what was found."""

    def __call__(self, done: int, total: int | None, told: str = "") -> None: ...


class _Lines:
    """Writes a line each time that so many seconds have gone by."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._told_at, self._done = seconds, time.monotonic(), 0

    def __call__(self, done: int, total: int | None, told: str = "") -> None:
        now = time.monotonic()
        if now - self._told_at < self._seconds:
            return
        rate = (done - self._done) / max(now - self._told_at, 1e-3)
        of = "" if total is None else f" of {total:,}"
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{done:,}{of} done, {rate:.1f}/s: {told}\n")
        self._told_at, self._done = now, done


@contextlib.contextmanager
def progress(line_each: float = math.inf) -> Iterator[Show]:
    """Show a bar with rate and time left, which disappears at the end.

    Args:
        line_each: seconds between two lines where standard error is no terminal that can draw a bar.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
    )

    class Terminal(Console):
        """Leaves it to the terminal to break long lines: names that are logged meanwhile stay whole."""

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*objects, **{"soft_wrap": True, **options})

        def show_cursor(self, show: bool = True) -> bool:
            """Never hide it: a command that is killed would leave the terminal without a cursor."""
            return False

    console = Terminal(stderr=True)
    if not (sys.stderr.isatty() and console.is_interactive):  # no bar in a pipe, even if colours are forced
        yield _Lines(line_each)
        return
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, rate="", told="starting")

        def show(done: int, total: int | None, told: str = "") -> None:
            speed = bars.tasks[0].speed
            rate = f"{speed:.{0 if speed >= 10 else 1}f}/s" if speed else ""
            bars.update(task, total=total, completed=done, rate=rate, told=told)

        yield show
