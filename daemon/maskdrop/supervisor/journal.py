"""One log line for everything that happens to a picture or a worker, and counts of it all."""

import logging
from collections.abc import Mapping

from maskdrop.death import Death
from maskdrop.events import Event
from maskdrop.health.file import QuarantinedPicture, SavedPicture, timestamp
from maskdrop.log import relay, tell
from maskdrop.names import printable
from maskdrop.supervisor.pipeline import Flight
from maskdrop.supervisor.record import Record
from maskdrop.ticket import Absence, DoneBefore, Left, Quarantined, Saved, Stage

logger = logging.getLogger("maskdrop")

LONGEST_SHOWN = 160
"""Most characters of a name or message in the health file, which so stays small whatever is dropped."""


class Journal:
    """Writes the lines and owns the counts, so that they can't disagree."""

    def __init__(self) -> None:
        self.record = Record()

    def accepted(self) -> None:
        """A picture has got a slot."""
        self.record.accepted += 1

    def saved(self, flight: Flight, report: Saved, now: float) -> None:
        """A picture's results are in the outbox, and its original is put away."""
        total = (now - flight.accepted_at) * 1000
        times = {**flight.milliseconds, "save": report.milliseconds, "total": total}
        name, rounded = printable(flight.ticket.path), _rounded(times)
        self.record.note_saved(now, times, SavedPicture(shortened(name), timestamp(), rounded))
        results = [printable(result) for result in report.names]
        shown = ", ".join(f"{stage} {spent:.0f}" for stage, spent in times.items())
        target = ", ".join(results) or "the outbox, before its worker died"
        tell(
            logging.INFO,
            Event.SAVED,
            f"saved {name} -> {target} in ms: {shown}",
            picture=name,
            result="saved",
            stage="save",
            outputs=results,
            ms=rounded,
        )

    def quarantined(self, flight: Flight, report: Quarantined, now: float) -> None:
        """A picture is at fault, and in quarantine, if there is one."""
        name, fault = printable(flight.ticket.path), flight.fault
        assert fault is not None
        spent = {**flight.milliseconds, "total": (now - flight.accepted_at) * 1000}
        told, times = (fault.error, fault.message), _rounded(spent)
        error, message = (shortened(printable(text), keep_end=False) for text in told)
        latest = QuarantinedPicture(shortened(name), timestamp(), fault.stage.value, error, message, times)
        self.record.note_quarantined(fault.stage, flight.milliseconds, latest)
        shown = ", ".join(f"{stage} {milliseconds:.0f}" for stage, milliseconds in spent.items())
        outcome = f"quarantined {name} -> {printable(report.name)}" if report.name else f"broken {name}"
        tell(
            logging.WARNING,
            Event.QUARANTINED,
            f"{outcome}: {fault.stage.value}: {fault.error}: {fault.message} in ms: {shown}",
            picture=name,
            result="quarantined",
            stage=fault.stage.value,
            error=fault.error,
            ms=times,
        )

    def left(self, flight: Flight, report: Left) -> None:
        """A file stays in the inbox, or is gone from it."""
        self.record.left_as[report.absence] += 1
        name = printable(flight.ticket.path)
        level = logging.WARNING if report.absence is Absence.STUCK else logging.INFO
        again = (
            "; tried again at a later rescan, or once it is changed"
            if report.absence is Absence.STUCK
            else ""
        )
        message = f"left {name}: {report.message}{again}"
        tell(level, Event.LEFT, message, picture=name, result="left", absence=report.absence.value)

    def done_before(self, flight: Flight, report: DoneBefore) -> None:
        """An earlier batch made the picture's results."""
        logger.info("done before %s", printable(flight.ticket.path))

    def died(self, stage: Stage, worker: str, pid: int, death: Death, held: list[Flight]) -> None:
        """A worker died; the pictures it held go round again."""
        self.record.retried += len(held)
        self.record.deaths[stage, death.ending] += 1
        pictures = ", ".join(printable(flight.ticket.path) for flight in held) or "nothing"
        message = f"worker {worker} (pid {pid}) {death}; it held {pictures}"
        facts = {"worker": worker, "pid": pid, "cause": death.cause, "retried": len(held)}
        tell(logging.ERROR, Event.WORKER_DIED, message, **facts)

    def relay(self, worker: str, lines: list[str]) -> None:
        """Log what a worker wrote."""
        for line in lines:
            relay(worker, line)


def shortened(text: str, keep_end: bool = True) -> str:
    """A text cut to `LONGEST_SHOWN` characters for the health file; of a path, the end says most."""
    if len(text) <= LONGEST_SHOWN:
        return text
    return "…" + text[1 - LONGEST_SHOWN :] if keep_end else text[: LONGEST_SHOWN - 1] + "…"


def _rounded(times: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(spent, 1) for stage, spent in times.items()}
