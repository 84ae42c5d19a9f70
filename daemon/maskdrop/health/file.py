"""The health file: written by the daemon, read by ``maskdrop status`` and by programs."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from maskdrop import foreign_json
from maskdrop.names import at_home


class State(StrEnum):
    """What the daemon as a whole is doing."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPED = "stopped"


WELL = frozenset({State.RUNNING, State.DRAINING})
"""States in which ``maskdrop status`` exits 0."""

ODD = (KeyError, TypeError, ValueError, AttributeError)
"""Errors that reading a health file of another version raises."""

STALE_AFTER = 5
"""Missed updates after which a health file is out of date."""


@dataclass(frozen=True)
class Counts:
    """Pictures since the daemon started.

    Attributes:
        accepted: taken into flight; those that a reload sends back to the inbox are counted again.
        saved: their results are on disk.
        quarantined: they went to quarantine.
        retried: they went round again because a worker died with them.
        left: left alone, because they are gone, changed meanwhile, or can't be read, moved or saved.
    """

    accepted: int
    saved: int
    quarantined: int
    retried: int
    left: int


@dataclass(frozen=True)
class StageHealth:
    """The workers of one stage together.

    Attributes:
        workers: how many workers there should be.
        ready: those that can be given pictures.
        busy: 0 to 1: the share of the last ten seconds in which they worked at a picture. The stage near 1 is
            the bottleneck.
        waiting: pictures that wait for this stage.
        ms: ``p50`` and ``p99``: milliseconds that a picture took here, as the median and the 99th percentile
            of the last thousand; null before the first.
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
        preprocess: how many decoders there should be: as set, or chosen from measurements and from how
            busy the stages are.
        infer: inference workers of all devices together.
        save: how many savers there should be, set or chosen in the same way.
        threads: threads of each inference worker.
        max_batch: most pictures that are inferred together.
        slots: most pictures in flight.
        measured_ms: milliseconds that a picture cost each stage when its worker measured at its start; null
            where numbers are set.
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
    """A picture whose results are on disk.

    Attributes:
        picture: its path in the inbox.
        at: when.
        ms: milliseconds in settle, preprocess, infer, save, and in total; also in locate and infer again
            if small faces were looked at again.
    """

    picture: str
    at: str
    ms: dict[str, float]


@dataclass(frozen=True)
class QuarantinedPicture:
    """A picture that went to quarantine.

    Attributes:
        picture: its path in the inbox.
        at: when.
        stage: where the fault was found.
        error: the kind of fault.
        message: what is wrong with it.
        ms: milliseconds in the stages it got through.
    """

    picture: str
    at: str
    stage: str
    error: str
    message: str
    ms: dict[str, float]


@dataclass(frozen=True)
class Latest:
    """The latest pictures of each kind.

    Attributes:
        saved: the latest ten that were saved, the newest first.
        quarantined: the latest ten that went to quarantine, the newest first.
    """

    saved: list[SavedPicture]
    quarantined: list[QuarantinedPicture]


@dataclass(frozen=True)
class WorkerHealth:
    """One worker's place.

    Attributes:
        stage: preprocess, infer or save.
        pid: its process number.
        alive: false: it died and is about to be replaced.
        ready: it can be given pictures; false while it starts.
        restarts: workers that were started here to replace ones that died or couldn't be started.
    """

    stage: str
    pid: int
    alive: bool
    ready: bool
    restarts: int


@dataclass(frozen=True)
class Health:
    """Everything in the health file; its fields are the file's keys.

    Attributes:
        state: starting, running, degraded, draining or stopped.
        reason: why it is not running; empty while it is.
        pid: the supervisor's process number.
        version: maskdrop's.
        started_at: UTC, ISO 8601.
        updated_at: UTC, ISO 8601. A file whose ``updated_at`` is older than five intervals (at least
            5 s) is out of date; one as far in the future was written while a clock was wrong.
        interval_s: seconds between two updates.
        counts: pictures since the daemon started.
        in_flight: pictures between inbox and outbox.
        backlog: pictures in the inbox that are not taken.
        queues: pictures that wait for a step: preprocess, infer, locate, save, quarantine; and
            ``free_slots``, the slots that are free.
        stages: preprocess, infer, save: the workers of each together.
        plan: how the work is shared out.
        workers: one entry for each worker's place.
        throughput_per_s: pictures saved a second, over the last ten seconds.
        latency_ms: ``p50`` and ``p99``: milliseconds from acceptance to saved, of the last thousand.
        device: what labels the pictures, such as cpu; empty before the network is loaded.
        precision: fp32, bf16, int8 or fp16; empty before the network is loaded.
        model: file and SHA-256 of the network; empty before it is loaded.
        latest: the latest pictures of each kind.
    """

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


def content_of(health: Health) -> bytes:
    """The health file's content: JSON in UTF-8, a field a line."""
    return json.dumps(asdict(health), indent=2).encode() + b"\n"


def at_another_time(content: bytes, updated_at: str) -> bytes:
    """The same content with a new ``updated_at``. Quotes inside JSON's strings are escaped, so only the key
    can be found."""
    head, key, tail = content.partition(b'"updated_at": "')
    return head + key + updated_at.encode() + tail[tail.index(b'"') :]


class HealthUnreadable(Exception):
    """No health file can be read; the message says what to do."""


def read_health(path: Path) -> dict[str, Any]:
    """The health file's content.

    Raises:
        HealthUnreadable: it is missing or not a health file.
    """
    try:
        content = foreign_json.loads(at_home(path).read_bytes())
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
    """Whether the file is up to date: no more than `STALE_AFTER` updates were missed.

    A file dated further ahead than that was written while a clock was wrong. It would stay fresh until then,
    whatever became of the daemon.
    """
    limit = stale_after_s(health)
    return -limit <= age_seconds(health) <= limit


def dated_ahead(health: dict[str, Any]) -> str:
    """What is wrong with a file dated further in the future than clocks differ; empty for others."""
    ahead = -age_seconds(health)
    return f"dated {ahead:.0f} s in the future: is the clock wrong?" if ahead > stale_after_s(health) else ""


def stale_after_s(health: dict[str, Any]) -> float:
    """Seconds without an update after which the file is out of date."""
    return STALE_AFTER * max(1.0, float(health.get("interval_s", 1.0)))
