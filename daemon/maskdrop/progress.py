"""How far a command is: a bar on standard error, where that is a terminal."""

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Show(Protocol):
    """Takes how many are done, of how many (None: not known yet), and a few words on what was found."""

    def __call__(self, done: int, total: int | None, told: str = "") -> None: ...


@contextlib.contextmanager
def progress() -> Iterator[Show]:
    """A bar with rate and time left, which is gone at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task("", total=None, rate="", told="starting")

        def show(done: int, total: int | None, told: str = "") -> None:
            speed = bars.tasks[0].speed
            rate = f"{speed:.{0 if speed >= 10 else 1}f}/s" if speed else ""
            bars.update(task, total=total, completed=done, rate=rate, told=told)

        yield show
