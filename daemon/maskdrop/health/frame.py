"""A health file drawn as one screen of ``maskdrop top``: a line for each thing, at any width and height."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from textwrap import wrap
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from maskdrop.health.file import State, age_seconds, dated_ahead, is_fresh, stale_after_s
from maskdrop.names import printable

WIDE = 120
"""Columns from which on the latest pictures and quarantines stand side by side."""

_BAR = 10
_REASON_LINES = 3
_STYLES = {
    State.STARTING: "bold yellow",
    State.RUNNING: "bold green",
    State.DEGRADED: "bold red",
    State.DRAINING: "bold yellow",
    State.STOPPED: "bold red",
}


def draw(health: dict[str, Any], width: int, height: int) -> RenderableType:
    """The whole screen.

    Args:
        height: lines at most; the lists of the latest pictures get what is left by the rest.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no health file of this version.
    """
    head = [_title(health), *_reason(health, width), *_numbers(health), Text()]
    stages = _stages(health)
    room = max(3, height - len(head) - stages.row_count - 1 - 1 - 1)  # titles, a blank line, the last line
    return Group(*head, stages, Text(), *_latest(health["latest"], width, room), _foot(health))


def draw_absence(problem: str) -> RenderableType:
    """The screen while there is no health file."""
    return Group(_line("maskdrop", ("no daemon", "bold red")), _plain(problem), Text(), _keys())


def _title(health: dict[str, Any]) -> Text:
    fresh, state = is_fresh(health), State(health["state"])
    shown = (state.value, _STYLES[state]) if fresh or state is State.STOPPED else ("GONE", "bold red")
    age = timedelta(seconds=round(_since(health["started_at"], health["updated_at"])))
    return _line(f"maskdrop {health['version']}", shown, f"pid {health['pid']}", f"up {age}")


def _reason(health: dict[str, Any], width: int) -> list[Text]:
    """Why the daemon isn't running, on a few lines, since the remedy stands at the end."""
    told = str(health["reason"])
    if not is_fresh(health) and health["state"] != State.STOPPED:
        past = f"nothing heard for {age_seconds(health):.0f} s: the daemon is gone or stuck;"
        told = f"{dated_ahead(health) or past} it was " + (
            f"{health['state']}: {told}" if told else str(health["state"])
        )
    style = "red" if health["state"] != State.DRAINING else ""
    return [_line((part, style)) for part in wrap(printable(told), width)[:_REASON_LINES]]


def _numbers(health: dict[str, Any]) -> list[Text]:
    counts, latency = health["counts"], health["latency_ms"]
    rate = (f"{float(health['throughput_per_s']):.1f} pictures/s", "bold")
    backlog, in_flight = (int(health[key]) for key in ("backlog", "in_flight"))
    times = [f"{name} {_ms(value)} ms" for name, value in latency.items() if value is not None]
    model = health["model"]
    free = int(health["queues"]["free_slots"])
    return [
        _line(rate, f"backlog {backlog:,}", f"in flight {in_flight} of {in_flight + free}", ", ".join(times)),
        _line(*(f"{name} {int(count):,}" for name, count in counts.items())),
        _line(f"{model} on {health['device']}, {health['precision']}" if model else "no network loaded yet"),
    ]


def _stages(health: dict[str, Any]) -> Table:
    table = _table()
    for name in ("stage", "ready", "busy"):
        table.add_column(name, no_wrap=True)
    for name in ("waiting", "p50 ms", "p99 ms", "restarts"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("workers", no_wrap=True, overflow="ellipsis", ratio=1)
    for name, stage in health["stages"].items():
        workers = [worker for worker in health["workers"] if worker["stage"] == name]
        all_ready = stage["ready"] == stage["workers"]
        ready = Text(f"{stage['ready']}/{stage['workers']}", style="" if all_ready else "bold red")
        cells = [_plain(stage["waiting"]), *(_plain(_ms(stage["ms"][key])) for key in ("p50", "p99"))]
        restarts = sum(int(worker["restarts"]) for worker in workers)
        style = "yellow" if restarts else ""
        pids = Text(" ").join(_pid(worker) for worker in workers)
        row = (_plain(name), ready, _bar(float(stage["busy"])), *cells, Text(str(restarts), style), pids)
        table.add_row(*row)
    return table


def _pid(worker: dict[str, Any]) -> Text:
    style = "bold red" if not worker["alive"] else "" if worker["ready"] else "yellow"
    return Text(f"{worker['pid']}", style)


def _bar(share: float) -> Text:
    full = round(share * _BAR)
    return Text.assemble(("█" * full, "cyan"), ("░" * (_BAR - full), "dim"), f" {share:4.0%}")


def _latest(latest: dict[str, Any], width: int, room: int) -> list[RenderableType]:
    """Both lists in ``room`` lines, with titles. Quarantined pictures get half, or what saved ones leave."""
    saved, quarantined = latest["saved"], latest["quarantined"]
    if width >= WIDE:
        side = _table()
        side.add_column(ratio=2)
        side.add_column(ratio=3)
        side.show_header = False
        side.add_row(_saved(saved[: room - 1]), _quarantined(quarantined[: room - 1]))
        return [side]
    rows = max(0, room - 3)
    few = min(len(quarantined), max(rows // 2, rows - len(saved)))
    return [_saved(saved[: rows - few]), Text(), _quarantined(quarantined[:few])]


def _saved(pictures: Sequence[dict[str, Any]]) -> Table:
    table = _list_of("saved", "ms in all")
    for picture in pictures:
        table.add_row(_time(picture["at"]), _plain(picture["picture"]), _plain(_ms(picture["ms"]["total"])))
    return table


def _quarantined(pictures: Sequence[dict[str, Any]]) -> Table:
    table = _list_of("quarantined", "why")
    table.columns[2].justify, table.columns[2].ratio = "left", 3
    for picture in pictures:
        why = _plain(f"{picture['stage']}: {picture['error']}: {picture['message']}")
        table.add_row(_time(picture["at"]), _plain(picture["picture"]), why)
    return table


def _list_of(kind: str, last: str) -> Table:
    table = _table()
    table.add_column("at", no_wrap=True)
    table.add_column(kind, no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(last, no_wrap=True, overflow="ellipsis", justify="right")
    return table


def _table() -> Table:
    return Table(box=None, pad_edge=False, expand=True, header_style="bold dim")


def _foot(health: dict[str, Any]) -> Text:
    limit = stale_after_s(health)
    told = f"   health file {max(0.0, age_seconds(health)):.1f} s old, stale after {limit:.0f} s"
    return Text.assemble(_keys(), told, style="dim", no_wrap=True, overflow="ellipsis")


def _keys() -> Text:
    return Text("q or Ctrl-C ends", "dim")


def _line(*parts: str | tuple[str, str]) -> Text:
    """Parts on one line, with room between them; never broken."""
    shown = [(part, "") if isinstance(part, str) else part for part in parts]
    texts = [Text(printable(part), style) for part, style in shown if part]
    line = Text("   ").join(texts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _plain(value: object) -> Text:
    return Text(printable(str(value)))


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{float(milliseconds):,.0f}"


def _time(at: str) -> Text:
    """Time of day in the terminal user's time zone."""
    return Text(f"{datetime.fromisoformat(at).astimezone():%H:%M:%S}", "dim")


def _since(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
