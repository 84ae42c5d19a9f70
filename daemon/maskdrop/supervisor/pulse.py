"""When the health file is written, and what never changes in it."""

import contextlib
import logging
import os

from maskdrop import __version__
from maskdrop.config import Settings
from maskdrop.health import Counts, Health, State, timestamp, write_health
from maskdrop.inbox.intake import Intake
from maskdrop.supervisor.crew import Crew
from maskdrop.supervisor.pipeline import Pipeline, Step
from maskdrop.supervisor.record import Record

logger = logging.getLogger("maskdrop")


class Pulse:
    """Writes the health file every interval and at each change of state."""

    def __init__(self, settings: Settings) -> None:
        self._path, self._interval = settings.health_file, settings.health.interval_s
        self._started_at = timestamp()
        self._last: tuple[State, str] | None = None
        self._failing = False
        self.next_at = 0.0

    def follow(self, settings: Settings) -> None:
        """Go by new settings; a file of another name is made, and the old one taken away."""
        if settings.health_file != self._path:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._path, self._interval = settings.health_file, settings.health.interval_s
        self.next_at = 0.0

    def is_due(self, now: float, state: State, reason: str) -> bool:
        """Whether it must be written now; if so, the next time is one interval on."""
        if now < self.next_at and self._last == (state, reason):
            return False
        self.next_at = now + self._interval
        self._last = (state, reason)
        return True

    def snapshot(
        self,
        state: State,
        reason: str,
        now: float,
        record: Record,
        pipeline: Pipeline,
        intake: Intake,
        crew: Crew,
    ) -> Health:
        """The daemon's health at this moment."""
        queues = {step.value: pipeline.waiting(step) for step in Step}
        return Health(
            state=state,
            reason=reason,
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            updated_at=timestamp(),
            interval_s=self._interval,
            counts=Counts(record.accepted, record.saved, record.quarantined, record.retried),
            in_flight=len(pipeline),
            backlog=intake.backlog,
            queues={**queues, "free_slots": pipeline.free_slots},
            workers=crew.health(),
            throughput_per_s=round(record.throughput(now), 2),
            latency_ms={"p50": _rounded(record.percentile(50)), "p99": _rounded(record.percentile(99))},
            device=crew.model.device,
            precision=crew.model.precision,
            model=crew.model.name,
        )

    def write(self, health: Health) -> None:
        """Replace the file. A failure is logged once: the daemon's work matters more."""
        try:
            write_health(self._path, health)
        except OSError as error:
            if not self._failing:
                logger.error("the health file %s can't be written: %s", self._path, error.strerror)
            self._failing = True
        else:
            self._failing = False


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)
