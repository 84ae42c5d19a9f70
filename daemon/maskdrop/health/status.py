"""A health file shown to a person, and judged."""

from typing import Any

from rich.console import Console
from rich.table import Table

from maskdrop.health.file import WELL, State, age_seconds, dated_ahead, is_fresh


def is_well(health: dict[str, Any]) -> bool:
    """Whether the daemon is running or draining, and said so just now."""
    return health["state"] in WELL and is_fresh(health)


def is_alive(health: dict[str, Any]) -> bool:
    """Whether the daemon is there and not stuck: a state that no restart could mend counts as alive."""
    return health["state"] != State.STOPPED and is_fresh(health)


def show(health: dict[str, Any]) -> None:
    """Print a health file as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("state", f"{health['state']}" + (f" ({health['reason']})" if health["reason"] else ""))
    table.add_row("updated", dated_ahead(health) or _age(health))
    table.add_row(
        "daemon", f"pid {health['pid']}, maskdrop {health['version']}, since {health['started_at']}"
    )
    counts = ", ".join(f"{count} {name}" for name, count in health["counts"].items())
    table.add_row("pictures", counts)
    table.add_row("now", f"{health['in_flight']} in flight, backlog {health['backlog']}")
    table.add_row("queues", ", ".join(f"{name} {count}" for name, count in health["queues"].items()))
    latency = health["latency_ms"]
    times = ", ".join(f"{name} {value} ms" for name, value in latency.items() if value is not None)
    table.add_row("speed", f"{health['throughput_per_s']} pictures/s" + (f", {times}" if times else ""))
    table.add_row("model", f"{health['model'] or '-'} on {health['device'] or '-'} {health['precision']}")
    for worker in health["workers"]:
        life = ("ready" if worker["ready"] else "starting") if worker["alive"] else "DEAD"
        table.add_row(worker["stage"], f"pid {worker['pid']}, {life}, {worker['restarts']} restarts")
    Console(highlight=False, markup=False).print(table)  # reasons and names may have brackets in them


def _age(health: dict[str, Any]) -> str:
    told = f"{max(0.0, age_seconds(health)):.1f} s ago"
    return told if is_fresh(health) else f"{told}, STALE: the daemon is gone or stuck"
