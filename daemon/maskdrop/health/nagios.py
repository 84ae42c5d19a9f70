"""A health file judged in the way of a Nagios plugin, which Icinga, Naemon, Checkmk and Sensu run too."""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from maskdrop.health.file import (
    ODD,
    HealthUnreadable,
    State,
    age_seconds,
    dated_ahead,
    is_fresh,
    read_health,
)
from maskdrop.names import printable


class Level(IntEnum):
    """Exit codes of monitoring plugins (Monitoring Plugins Development Guidelines, "Plugin Return Codes")."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class Limits:
    """Backlogs from which on the result is a warning, or critical; None: never."""

    warning: int | None = None
    critical: int | None = None


def check(file: Path, limits: Limits) -> tuple[Level, str]:
    """The exit code, and the one line with performance data that a monitoring server wants."""
    try:
        health = read_health(file)
        level, told = _judge(health, limits)
        return level, _line(level, told) + " | " + _performance(health, limits)
    except HealthUnreadable as error:
        # A running daemon keeps its health file in place, so its absence means: not running.
        gone = isinstance(error.__cause__, FileNotFoundError)
        level = Level.CRITICAL if gone else Level.UNKNOWN
        return level, _line(level, str(error))
    except ODD as error:
        return Level.UNKNOWN, _line(Level.UNKNOWN, f"{file}: not a health file of this version ({error!r})")


def _judge(health: dict[str, Any], limits: Limits) -> tuple[Level, str]:
    state, reason, backlog = health["state"], health["reason"], int(health["backlog"])
    told = f"{state}: {reason}" if reason else f"{state}"
    if state == State.STOPPED:
        return Level.CRITICAL, told
    if not is_fresh(health):
        past = f"gone or stuck: last heard {age_seconds(health):.0f} s ago,"
        return Level.CRITICAL, f"{dated_ahead(health) or past} then {told}"
    told += f", {health['throughput_per_s']} pictures/s, backlog {backlog}"
    if limits.critical is not None and backlog >= limits.critical:
        return Level.CRITICAL, told
    if state in (State.DEGRADED, State.STARTING) or (
        limits.warning is not None and backlog >= limits.warning
    ):
        return Level.WARNING, told
    return Level.OK, told


def _line(level: Level, told: str) -> str:
    return f"MASKDROP {level.name} - {printable(told).replace('|', '/')}"


def _performance(health: dict[str, Any], limits: Limits) -> str:
    """``'label'=value[unit];[warning];[critical];[minimum]``; unit c is a counter."""
    marks = ";".join("" if limit is None else str(limit) for limit in (limits.warning, limits.critical))
    p99 = health["latency_ms"]["p99"]
    values = [
        f"backlog={int(health['backlog'])};{marks};0",
        f"in_flight={int(health['in_flight'])};;;0",
        *(f"{name}={int(count)}c;;;0" for name, count in health["counts"].items()),
        f"throughput={float(health['throughput_per_s'])};;;0",
        f"p99={'U' if p99 is None else f'{float(p99)}ms'};;;0",
        *(f"busy_{stage}={float(s['busy']):.1%};;;0;100" for stage, s in health["stages"].items()),
    ]
    return " ".join(values)
