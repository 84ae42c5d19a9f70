"""What each kind of report from a worker changes. Nothing here waits."""

import logging
import time
from itertools import zip_longest

from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.death import Death, Ending
from maskdrop.events import Event
from maskdrop.inbox.supply import Supply
from maskdrop.log import tell
from maskdrop.names import printable
from maskdrop.supervisor.child import Child
from maskdrop.supervisor.course import Course
from maskdrop.supervisor.crew import Crew
from maskdrop.supervisor.journal import Journal
from maskdrop.supervisor.pipeline import Pipeline, is_hopeless
from maskdrop.supervisor.renewal import Renewal
from maskdrop.supervisor.stall import Stall
from maskdrop.ticket import (
    Absence,
    DoneBefore,
    Inferred,
    Left,
    Located,
    Prepared,
    Quarantined,
    Ready,
    Refused,
    Report,
    Saved,
    Stalled,
    Started,
    Unfit,
    cut,
)

logger = logging.getLogger("maskdrop")


class Reports:
    """Takes reports in and owns nothing: flights belong to the pipeline, workers to the crew."""

    def __init__(
        self,
        pipeline: Pipeline,
        intake: Supply,
        crew: Crew,
        journal: Journal,
        stall: Stall,
        course: Course,
        renewal: Renewal,
    ) -> None:
        self._pipeline, self._intake, self._crew = pipeline, intake, crew
        self._journal, self._stall, self._course = journal, stall, course
        self._renewal = renewal

    def handle(self, child: Child, report: Report) -> None:
        """Take in a worker's report. One about a picture must be about a flight that is still under way."""
        match report:
            case Ready():
                self._crew.note_ready(child, report)
            case Unfit():
                self._on_unfit(child, report)
            case Prepared():
                self._pipeline.prepared(report.number, report.facts, report.milliseconds)
            case Refused():
                self._pipeline.condemn(report.number, report.fault)
            case Started():
                self._pipeline.begin(child.name, report.numbers)
            case Inferred():
                for number, judged in zip_longest(report.numbers, report.judged):
                    self._pipeline.inferred(number, report.milliseconds, number in report.small, judged)
            case Located():
                self._pipeline.located(report.number, report.regions, report.milliseconds)
            case Left():
                self._on_left(report)
            case DoneBefore():
                self._on_done_before(report)
            case Stalled():
                self._on_stalled(report)
            case Saved() | Quarantined():
                self._on_done(report)

    def _on_unfit(self, child: Child, report: Unfit) -> None:
        """End a daemon that never worked. One that did goes back to the configuration it worked with, or, if
        that is the one that was spoilt, tries again until it is mended."""
        if child in self._crew.retired:
            return
        if self._renewal.can_go_back and not self._crew.has_stayed(child):
            self._renewal.go_back(report.message)
        if self._renewal.under_way or self._crew.was_complete or self._crew.was_ready(child):
            child.end(Death(Ending.UNFIT, report.message))
            return
        logger.error("%s", report.message)
        self._course.fail()
        self._crew.kill_all()

    def after_death(self, child: Child, pid: int, death: Death, most: int) -> None:
        """Send what a dead worker held round again. A picture that can't even be quarantined, because every
        worker dies of it, is left where it is.

        Args:
            most: attempts that a picture has in each step.
        """
        held = self._pipeline.lost(child.name, death, most)
        self._journal.died(child.stage, child.name, pid, death, held)
        for flight in held:
            if is_hopeless(flight, most):
                message = f"worker {child.name} {death}, when it was to be quarantined"
                self._on_left(Left(flight.number, Absence.STUCK, cut(message)))

    def _on_left(self, report: Left) -> None:
        flight = self._pipeline.finish(report.number)
        self._journal.left(flight, report)
        if report.absence is Absence.STUCK:
            self._intake.set_aside(flight.ticket.path, flight.ticket.identity)
        else:
            self._intake.release(flight.ticket.path, flight.ticket.identity)

    def _on_done_before(self, report: DoneBefore) -> None:
        flight = self._pipeline.finish(report.number)
        self._journal.done_before(flight, report)
        self._intake.release(flight.ticket.path, flight.ticket.identity)

    def _on_stalled(self, report: Stalled) -> None:
        if self._course.draining:
            flight = self._pipeline.finish(report.number)
            self._course.note_unfinished()
            logger.error("left %s in the inbox: %s", printable(flight.ticket.path), report.message)
            return
        step = self._pipeline[report.number].step
        self._pipeline.put_last(report.number)
        if self._stall.begin(step, report.message, time.monotonic()):
            message = f"taking no more work: {report.message}; trying again until it is mended"
            tell(logging.ERROR, Event.STALLED, message)

    def _on_done(self, report: Saved | Quarantined) -> None:
        crash_point(CrashPoint.REPORT_TAKEN)
        flight = self._pipeline.finish(report.number)
        if self._stall.end(flight.step) and self._stall.reason is None:
            tell(logging.INFO, Event.MENDED, "working again: the trouble is mended")
        if isinstance(report, Saved):
            self._journal.saved(flight, report, time.monotonic())
        else:
            self._journal.quarantined(flight, report, time.monotonic())
        self._intake.forget(flight.ticket.path)
