"""One log line for everything that happens to a picture or a worker, and the counts thereof."""

import logging
from typing import Any

from maskdrop.events import Event
from maskdrop.log import relay, tell
from maskdrop.names import printable
from maskdrop.supervisor.child import Death
from maskdrop.supervisor.pipeline import Flight
from maskdrop.supervisor.record import Record
from maskdrop.ticket import Absence, Left, Quarantined, Saved


class Journal:
    """Writes the lines and owns the counts, so that they can't disagree."""

    def __init__(self) -> None:
        self.record = Record()

    def accepted(self) -> None:
        self.record.accepted += 1

    def saved(self, flight: Flight, report: Saved, now: float) -> None:
        total = (now - flight.accepted_at) * 1000
        times = {**flight.milliseconds, "save": report.milliseconds, "total": total}
        self.record.note_saved(now, total)
        name = printable(flight.ticket.path)
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
            ms=_rounded(times),
        )

    def quarantined(self, flight: Flight, report: Quarantined, now: float) -> None:
        times = {**flight.milliseconds, "total": (now - flight.accepted_at) * 1000}
        self.record.quarantined += 1
        name, fault = printable(flight.ticket.path), flight.fault
        assert fault is not None
        shown = ", ".join(f"{stage} {spent:.0f}" for stage, spent in times.items())
        tell(
            logging.WARNING,
            Event.QUARANTINED,
            f"quarantined {name} -> {printable(report.name)}: {fault.stage.value}: {fault.error}: "
            f"{fault.message} in ms: {shown}",
            picture=name,
            result="quarantined",
            stage=fault.stage.value,
            error=fault.error,
            ms=_rounded(times),
        )

    def left(self, flight: Flight, report: Left) -> None:
        name = printable(flight.ticket.path)
        level = logging.WARNING if report.absence is Absence.UNREADABLE else logging.INFO
        again = "; tried again at the next rescan" if report.absence is Absence.UNREADABLE else ""
        message = f"left {name}: {report.message}{again}"
        tell(level, Event.LEFT, message, picture=name, result="left", absence=report.absence.value)

    def died(self, worker: str, pid: int, death: Death, held: list[Flight]) -> None:
        self.record.retried += len(held)
        pictures = ", ".join(printable(flight.ticket.path) for flight in held) or "nothing"
        message = f"worker {worker} (pid {pid}) {death}; it held {pictures}"
        facts = {"worker": worker, "pid": pid, "cause": death.cause, "retried": len(held)}
        tell(logging.ERROR, Event.WORKER_DIED, message, **facts)

    def relay(self, worker: str, lines: list[str]) -> None:
        """Log what a worker wrote."""
        for line in lines:
            relay(worker, line)


def _rounded(times: Any) -> dict[str, float]:
    return {stage: round(spent, 1) for stage, spent in times.items()}
