"""The health file: written by the daemon, read by ``maskdrop status`` and by programs."""

import contextlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any


class State(StrEnum):
    """What the daemon as a whole is doing."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPED = "stopped"


WELL = frozenset({State.RUNNING, State.DRAINING})
"""States in which ``maskdrop status`` exits 0."""

STALE_AFTER = 5
"""Missed updates after which a health file tells of the past."""


@dataclass(frozen=True)
class Counts:
    """Pictures since the daemon started."""

    accepted: int
    saved: int
    quarantined: int
    retried: int
    left: int


@dataclass(frozen=True)
class StageHealth:
    """The workers of one stage together.

    Attributes:
        workers, ready: how many there are to be, and how many can be given pictures.
        busy: 0 to 1, the share of the last seconds that they were at a picture.
        waiting: pictures in the stage's queues.
        ms: ``p50`` and ``p99`` of the milliseconds that the last thousand pictures took here.
    """

    workers: int
    ready: int
    busy: float
    waiting: int
    ms: dict[str, float | None]


@dataclass(frozen=True)
class PlanHealth:
    """How the work is shared out.

    Attributes:
        preprocess, infer, save: workers.
        threads: of each inference worker.
        measured_ms: what a picture cost each stage when its worker measured at its start; None
            where all numbers are set, or while nothing is known.
    """

    preprocess: int
    infer: int
    save: int
    threads: int
    max_batch: int
    slots: int
    measured_ms: dict[str, float | None]


@dataclass(frozen=True)
class SavedPicture:
    """A picture whose results are on disk: its name, when, and the milliseconds of each stage."""

    picture: str
    at: str
    ms: dict[str, float]


@dataclass(frozen=True)
class QuarantinedPicture:
    """A picture that went to quarantine, when, why, and the milliseconds of each stage it got through."""

    picture: str
    at: str
    stage: str
    error: str
    message: str
    ms: dict[str, float]


@dataclass(frozen=True)
class Latest:
    """The latest pictures of each kind, the newest first."""

    saved: list[SavedPicture]
    quarantined: list[QuarantinedPicture]


@dataclass(frozen=True)
class WorkerHealth:
    """One worker. A dead one that waits to be started again has ``alive`` false; one that can be
    given pictures has ``ready`` true."""

    stage: str
    pid: int
    alive: bool
    ready: bool
    restarts: int


@dataclass(frozen=True)
class Health:
    """Everything in the health file; its fields are the file's keys."""

    state: State
    reason: str
    pid: int
    version: str
    started_at: str
    updated_at: str
    interval_s: float
    counts: Counts
    in_flight: int
    backlog: int
    queues: dict[str, int]
    stages: dict[str, StageHealth]
    plan: PlanHealth
    workers: list[WorkerHealth]
    throughput_per_s: float
    latency_ms: dict[str, float | None]
    device: str
    precision: str
    model: str
    latest: Latest


def timestamp() -> str:
    """Now, in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_health(path: Path, health: Health) -> None:
    """Replace the health file atomically.

    Raises:
        OSError: it can't be written; the old one stays.
    """
    replace_file(path, json.dumps(asdict(health), indent=2).encode() + b"\n")


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file that is read at any time: it is seen as it was or as it is, never in part.

    Raises:
        OSError: it can't be written; the old one stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


class HealthUnreadable(Exception):
    """There is no health file to be read; the message says what to do."""


def read_health(path: Path) -> dict[str, Any]:
    """The health file's content.

    Raises:
        HealthUnreadable: it is missing or not a health file.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise HealthUnreadable(
            f"{path}: {error.strerror}; is the daemon running with this health file?"
        ) from error
    except ValueError as error:
        raise HealthUnreadable(f"{path}: not a health file ({error})") from error
    if not isinstance(content, dict) or "state" not in content or "updated_at" not in content:
        raise HealthUnreadable(f"{path}: not a health file; name the one the daemon writes")
    return content


def age_seconds(health: dict[str, Any]) -> float:
    """Seconds since the file was updated."""
    return (datetime.now(UTC) - datetime.fromisoformat(health["updated_at"])).total_seconds()


def is_fresh(health: dict[str, Any]) -> bool:
    """Whether the file is of now: fewer than `STALE_AFTER` updates were missed."""
    return age_seconds(health) <= STALE_AFTER * max(1.0, float(health.get("interval_s", 1.0)))
