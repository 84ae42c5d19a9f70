"""When the health file and the metrics are written, and what they say."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from maskdrop import __version__
from maskdrop.config import Settings
from maskdrop.death import Ending
from maskdrop.durable import replace_file
from maskdrop.health.file import (
    Counts,
    Health,
    StageHealth,
    State,
    at_another_time,
    content_of,
    timestamp,
)
from maskdrop.health.totals import Totals
from maskdrop.inbox.supply import Supply
from maskdrop.names import printable
from maskdrop.supervisor.busy import BusyTime
from maskdrop.supervisor.crew import Crew
from maskdrop.supervisor.pipeline import Pipeline, Step
from maskdrop.supervisor.plan import Plan
from maskdrop.supervisor.record import Record
from maskdrop.ticket import Absence, Stage

logger = logging.getLogger("maskdrop")


class Publisher(Protocol):
    """What takes the metrics; see health/metrics.py."""

    def publish(self, health: Health, totals: Totals) -> None: ...

    def renew(self, updated_at: str) -> None: ...

    def close(self) -> None: ...


class Pulse:
    """Writes the health file, and the metrics if they are wanted, every interval and at each change of
    state."""

    def __init__(self, settings: Settings) -> None:
        """Listen, if metrics have a port.

        Raises:
            ConfigurationError: the port can't be had.
        """
        self._started_at = timestamp()
        self._last: tuple[State, str] | None = None
        self._content = b""
        self._is_settled = False
        self._failing: set[Path] = set()
        self.busy = BusyTime()
        self._settings = settings
        self._metrics: Publisher | None = None
        self._start_metrics()
        self.next_at = 0.0

    def follow(self, settings: Settings) -> None:
        """Go by new settings. Files that have other names now are removed under their old ones.

        Raises:
            ConfigurationError: the metrics' port can't be had.
        """
        before, self._settings = self._settings, settings
        _take_away(before.health_file, settings.health_file)
        if before.metrics.file is not None:
            _take_away(before.metrics.file, settings.metrics.file)
        self.next_at = 0.0
        if settings.metrics != before.metrics or settings.folders.inbox != before.folders.inbox:
            if self._metrics is not None:
                self._metrics.close()
            self._start_metrics()

    def _start_metrics(self) -> None:
        self._metrics = None
        if self._settings.metrics.is_wanted:
            from maskdrop.health.metrics import Metrics  # here, because most daemons never need the library

            self._metrics = Metrics(self._settings)

    def note_work(self, now: float, pipeline: Pipeline, crew: Crew) -> None:
        """Called after each round of the supervisor's loop; see `BusyTime`."""
        self.busy.note(now, Counter(c.stage for c in crew.children if pipeline.at_work(c.name)))

    def take_turn(self, now: float, state: State, reason: str) -> bool:
        """Whether the files must be written now; if so, the next time is one interval later."""
        self._is_settled = False
        if now < self.next_at and self._last == (state, reason):
            return False
        self.next_at = now + self._settings.health.interval_s
        self._last = (state, reason)
        return True

    def snapshot(
        self,
        state: State,
        reason: str,
        now: float,
        record: Record,
        pipeline: Pipeline,
        intake: Supply,
        crew: Crew,
        plan: Plan,
    ) -> Health:
        """The daemon's health at this moment."""
        queues = {step.value: pipeline.waiting(step) for step in Step}
        counts = Counts(record.accepted, record.saved, record.quarantined, record.retried, record.left)
        return Health(
            state=state,
            reason=reason,
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            updated_at=timestamp(),
            interval_s=self._settings.health.interval_s,
            counts=counts,
            in_flight=len(pipeline),
            backlog=intake.backlog,
            queues={**queues, "free_slots": pipeline.free_slots},
            stages=self._stages(now, record, pipeline, crew),
            plan=plan.told(),
            workers=crew.health(),
            throughput_per_s=round(record.throughput(now), 2),
            latency_ms=record.percentiles_of("total"),
            device=crew.model.device,
            precision=crew.model.precision,
            model=crew.model.name,
            latest=record.latest(),
        )

    def totals(self, record: Record, crew: Crew) -> Totals:
        """What has happened since the start."""
        return Totals(
            quarantined={stage.value: record.quarantined_at[stage] for stage in Stage},
            left={absence.value: record.left_as[absence] for absence in Absence},
            deaths={
                (stage.value, ending.name.lower()): record.deaths[stage, ending]
                for stage in Stage
                for ending in Ending
            },
            restarts={stage.value: crew.restarts[stage] for stage in Stage},
            busy_s={stage.value: seconds for stage, seconds in self.busy.seconds.items()},
            durations={stage: durations.histogram.copy() for stage, durations in record.durations.items()},
        )

    def write(self, health: Health, totals: Totals) -> None:
        """Replace the files. A failure is only logged, and once: the daemon's work matters more."""
        self._content, self._is_settled = content_of(health), _is_settled(health)
        self._replace(lambda metrics: metrics.publish(health, totals))

    def renew(self, now: float) -> bool:
        """Write the same again with a new time, if that is due, nothing has happened since, and nothing in it
        changes with time. An idle daemon does no more than this.

        Returns:
            False: a new snapshot may differ.
        """
        if self._is_settled and now >= self.next_at:
            self.next_at = now + self._settings.health.interval_s
            self.busy.note_rest(now)
            updated_at = timestamp()
            self._content = at_another_time(self._content, updated_at)
            self._replace(lambda metrics: metrics.renew(updated_at))
        return self._is_settled

    def _replace(self, publish: Callable[[Publisher], None]) -> None:
        path = self._settings.health_file
        self._attempt(lambda: replace_file(path, self._content), "health", path)
        if (metrics := self._metrics) is not None:
            self._attempt(lambda: publish(metrics), "metrics", self._settings.metrics.file or Path())

    def _attempt(self, write: Callable[[], None], kind: str, path: Path) -> None:
        try:
            write()
        except OSError as error:
            if path not in self._failing:
                logger.error("the %s file %s can't be written: %s", kind, printable(path), error.strerror)
            self._failing.add(path)
        else:
            self._failing.discard(path)

    def _stages(self, now: float, record: Record, pipeline: Pipeline, crew: Crew) -> dict[str, StageHealth]:
        workers = Counter(place.workplace.stage for place in crew.places)
        ready = Counter(place.workplace.stage for place in crew.places if place.is_ready)
        shares = self.busy.shares(now, workers)
        return {
            stage.value: StageHealth(
                workers=workers[stage],
                ready=ready[stage],
                busy=round(shares.get(stage, 0.0), 3),
                waiting=sum(pipeline.waiting(step) for step in Step if step.stage is stage),
                ms=record.percentiles_of(stage.value),
            )
            for stage in Stage
        }


def _take_away(old: Path, new: Path | None) -> None:
    """Remove a file that nobody renews any more: whoever reads it would take it for the truth."""
    if old != new:
        with contextlib.suppress(OSError):
            old.unlink()


def _is_settled(health: Health) -> bool:
    """Whether nothing in it changes as time goes by."""
    at_rest = not health.in_flight and not health.throughput_per_s
    at_rest = at_rest and not any(stage.busy for stage in health.stages.values())
    return at_rest and health.state is State.RUNNING and not health.reason
