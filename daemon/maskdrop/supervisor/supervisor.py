"""The supervisor: one loop that waits for everything at once and moves tickets along.

      inbox events ─┐                                          ┌─ signals
                    ▼                                          ▼
    ┌─ supervisor ─ select(events, reports, log lines, deaths, deadlines) ─────────┐
    │   intake ──► PREPARE queue   INFER queue   SAVE queue, QUARANTINE queue      │
    └──────┬──────────▲──┬────────────▲──┬────────────▲──┬────────────▲────────────┘
           │   Prepare│  │Prepared    │  │Inferred    │  │Saved,      │
           │          │  │            │  │            │  │Quarantined │
           └──► preprocess 0…N       infer, one a device     save 0…M
                      │                  │    ▲                ▲
                      └──► slots: picture┘    └ labels ────────┘   (shared memory)

Every arrow to or from a worker is a pipe of that worker's own. A death closes it and fires
the worker's sentinel, and the flights it held go round again.
"""

import logging
import selectors
import time
from functools import partial
from itertools import zip_longest

from maskdrop.config import Settings
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.folders import Folders
from maskdrop.health import State
from maskdrop.inbox.intake import Intake
from maskdrop.inbox.lock import InboxLock
from maskdrop.names import printable
from maskdrop.supervisor.child import Child, Death, Ending
from maskdrop.supervisor.crew import Crew
from maskdrop.supervisor.dispatch import Dispatch
from maskdrop.supervisor.journal import Journal
from maskdrop.supervisor.patience import Patience, overslept
from maskdrop.supervisor.pipeline import Pipeline, Step
from maskdrop.supervisor.plan import Plan
from maskdrop.supervisor.pulse import Model, Pulse
from maskdrop.supervisor.signals import Signals
from maskdrop.supervisor.stall import Stall
from maskdrop.ticket import (
    Absence,
    Inferred,
    Left,
    Located,
    Prepared,
    Quarantined,
    Ready,
    Refused,
    Report,
    Saved,
    Stage,
    Stalled,
    Started,
    Stop,
    Unfit,
)
from maskdrop.topology.slots import Slots

logger = logging.getLogger("maskdrop")

EX_OK, EX_CUT_SHORT, EX_CONFIG = 0, 1, 78
"""Exit codes: all finished; pictures left in flight; can't run as configured (sysexits.h)."""


class Supervisor:
    """The daemon's parent process."""

    def __init__(
        self, settings: Settings, folders: Folders, plan: Plan, slots: Slots, lock: InboxLock
    ) -> None:
        self._settings, self._plan = settings, plan
        self._selector = selectors.DefaultSelector()
        self._signals = Signals()
        self._selector.register(self._signals.wake_end, selectors.EVENT_READ, self._signals.clear)
        self._intake = Intake(folders.inbox, settings.watch, lock, self._signals.wake)
        self._pipeline = Pipeline(plan.slots)
        self._crew = Crew(settings, plan, slots, lock)
        self._journal = Journal()
        self._pulse = Pulse(settings)
        self._dispatch = Dispatch(self._intake, self._pipeline, self._crew, self._journal, plan.max_batch)
        self._patience = Patience(settings.workers.stage_timeout_s)
        self._stall = Stall()
        self._model = Model()
        self._was_ready = False
        self._stopping = False
        self._drain_deadline: float | None = None
        self._exit_code = EX_OK

    def run(self) -> int:
        """Work until told to stop; the exit code."""
        self._signals.install()
        self._intake.start()
        self._beat(time.monotonic())
        while not self._is_over():
            self._take_in()
            now = time.monotonic()
            self._heed_signals(now)
            if self._drain_deadline is None:
                self._intake.advance(now)
            self._start_workers(now)
            self._move_on(now)
            self._beat(now)
        self._intake.stop()
        self._write_health(State.STOPPED, self._stop_reason())
        return self._exit_code

    def _take_in(self) -> None:
        """Wait for whatever comes first and handle all that came, then end the workers that are late."""
        began = time.monotonic()
        wanted = self._wait(began)
        events = self._selector.select(wanted)
        now = time.monotonic()
        for key, _ in events:
            if self._selector.get_map().get(key.fd) is key:  # not unregistered by one before it
                key.data()
        if overslept(wanted, now - began):
            for child in self._crew.children:
                child.heard_at = now
        self._end_late_workers(now)

    # What is next in time.

    def _is_over(self) -> bool:
        return self._stopping and not self._crew.children

    def _wait(self, now: float) -> float:
        deadlines: list[float | None] = [self._pulse.next_at]
        if not self._stopping:
            deadlines += [self._crew.next_start(), self._stall.next_try]
            deadlines += [self._deadline_of(child) for child in self._crew.children]
        if self._exit_code == EX_OK:
            deadlines.append(self._drain_deadline)
        waits = [deadline - now for deadline in deadlines if deadline is not None]
        if self._drain_deadline is None:
            waits.append(self._intake.wait(now))
        return max(0.0, min(waits))

    def _beat(self, now: float) -> None:
        """Write the health file if it is due or the state changed."""
        state, reason = self._state()
        if self._pulse.is_due(now, state, reason):
            self._write_health(state, reason)

    def _write_health(self, state: State, reason: str) -> None:
        now, record = time.monotonic(), self._journal.record
        parts = (record, self._pipeline, self._intake, self._crew, self._model)
        self._pulse.write(self._pulse.snapshot(state, reason, now, *parts))

    # Signals and the end.

    def _heed_signals(self, now: float) -> None:
        count = self._signals.term_count
        if count and self._drain_deadline is None:
            self.handle_term(now)
        cut_short = count > 1 or (self._drain_deadline is not None and now >= self._drain_deadline)
        if cut_short and self._exit_code == EX_OK:
            self._cut_short("a second signal" if count > 1 else "drain.drain_timeout_s is over")
        if self._drain_deadline is not None and not self._stopping and not len(self._pipeline):
            self._stop_workers()

    def handle_term(self, now: float) -> None:
        """Begin to drain: take nothing more, finish what holds a slot."""
        self._drain_deadline = now + self._settings.drain.drain_timeout_s
        self._intake.stop()
        logger.info("draining: %d in flight, %d stay in the inbox", len(self._pipeline), self._intake.backlog)

    def _cut_short(self, why: str) -> None:
        if len(self._pipeline) or not self._stopping:
            logger.warning("ending at once (%s): %d in flight stay in the inbox", why, len(self._pipeline))
        self._exit_code = EX_CUT_SHORT
        self._stopping = True
        self._crew.kill_all()

    def _stop_workers(self) -> None:
        self._stopping = True
        for child in self._crew.children:
            child.send(Stop())

    # Workers.

    def _start_workers(self, now: float) -> None:
        if self._stopping:
            return
        for child in self._crew.start_due(now):
            register = partial(self._selector.register, events=selectors.EVENT_READ)
            register(child.reports, data=partial(self._on_report, child))
            register(child.stderr, data=partial(self._on_lines, child))
            register(child.sentinel, data=partial(self._on_death, child))

    def _deadline_of(self, child: Child) -> float | None:
        """When the worker is late, if something is expected of it."""
        if child.is_ended:
            return None
        return self._patience.deadline(child.state, bool(self._pipeline.held_by(child.name)), child.heard_at)

    def _end_late_workers(self, now: float) -> None:
        for child in self._crew.children:
            deadline = self._deadline_of(child)
            if deadline is not None and now >= deadline:
                child.end(Death(Ending.HUNG, self._patience.verdict(child.state)))

    def _on_lines(self, child: Child) -> None:
        lines = child.lines()
        if lines is None:
            self._selector.unregister(child.stderr)
        else:
            self._journal.relay(child.name, lines)

    def _on_report(self, child: Child) -> None:
        report = child.receive()
        if report is None:
            self._selector.unregister(child.reports)
        else:
            child.heard_at = time.monotonic()
            self._handle(child, report)

    def _on_death(self, child: Child) -> None:
        for report in child.remaining():
            self._handle(child, report)
        self._journal.relay(child.name, child.last_lines())
        for end in (child.reports, child.stderr, child.sentinel):
            if end in self._selector.get_map():
                self._selector.unregister(end)
        pid = child.pid
        death = self._crew.note_death(child, time.monotonic())
        if self._stopping:
            return
        most = self._settings.workers.max_attempts
        held = self._pipeline.lost(child.name, death.ending.value, death.cause, most)
        self._journal.died(child.name, pid, death, held)

    # Reports.

    def _handle(self, child: Child, report: Report) -> None:
        match report:
            case Ready():
                self._on_ready(child, report)
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
            case Stalled():
                self._on_stalled(report)
            case Saved():
                crash_point(CrashPoint.REPORT_TAKEN)
                self._note_progress()
                flight = self._pipeline.finish(report.number)
                self._journal.saved(flight, report, time.monotonic())
                self._intake.release(flight.ticket.path)
            case Quarantined():
                crash_point(CrashPoint.REPORT_TAKEN)
                self._note_progress()
                flight = self._pipeline.finish(report.number)
                self._journal.quarantined(flight, report)
                self._intake.release(flight.ticket.path)

    def _on_ready(self, child: Child, report: Ready) -> None:
        self._crew.note_ready(child)
        if child.stage is Stage.INFER:
            self._model = Model(report.device, report.precision, report.model)
        if self._crew.all_ready and not self._was_ready:
            self._was_ready = True
            logger.info(
                "ready: %d preprocess, %d infer (%s, %s), %d save, %d slots",
                self._plan.preprocess,
                len(self._plan.devices),
                ", ".join(self._plan.devices),
                self._model.precision,
                self._plan.save,
                self._plan.slots,
            )

    def _on_unfit(self, child: Child, report: Unfit) -> None:
        """A daemon that never worked ends; one that did waits for what was spoilt to be mended."""
        if self._was_ready or self._crew.was_ready(child):
            child.end(Death(Ending.UNFIT, report.message))
            return
        logger.error("%s", report.message)
        self._exit_code = EX_CONFIG
        self._stopping = True
        self._crew.kill_all()

    def _on_left(self, report: Left) -> None:
        flight = self._pipeline.finish(report.number)
        self._journal.left(flight, report)
        if report.absence is Absence.UNREADABLE:
            self._intake.set_aside(flight.ticket.path)
        else:
            self._intake.release(flight.ticket.path)

    def _on_stalled(self, report: Stalled) -> None:
        if self._drain_deadline is not None:
            flight = self._pipeline.finish(report.number)
            logger.error("left %s in the inbox: %s", printable(flight.ticket.path), report.message)
            return
        self._pipeline.put_back(report.number)
        if self._stall.begin(report.message, time.monotonic()):
            logger.error("taking no more work: %s; trying again until it is mended", report.message)

    def _note_progress(self) -> None:
        if self._stall.end():
            logger.info("working again: the trouble is mended")

    # Moving tickets along.

    def _move_on(self, now: float) -> None:
        give = self._dispatch.give
        if self._drain_deadline is None and self._stall.reason is None:
            self._dispatch.accept(now)
        give(Stage.PREPROCESS, (Step.LOCATE, Step.PREPARE), now)
        self._dispatch.give_batches(now)
        if self._stall.reason is None or self._drain_deadline is not None:
            give(Stage.SAVE, (Step.QUARANTINE, Step.SAVE), now)
        elif self._stall.may_try(now):
            give(Stage.SAVE, (Step.QUARANTINE, Step.SAVE), now, most=1)

    # State.

    def _state(self) -> tuple[State, str]:
        if self._drain_deadline is not None or self._stopping:
            return State.DRAINING, "told to stop"
        for reason in (self._stall.reason, self._intake.trouble, self._crew.trouble):
            if reason is not None:
                return State.DEGRADED, reason
        if not self._was_ready:
            return State.STARTING, "workers are starting"
        return State.RUNNING, ""

    def _stop_reason(self) -> str:
        reasons = {EX_OK: "drained", EX_CUT_SHORT: "drain cut short", EX_CONFIG: "can't run as configured"}
        return reasons[self._exit_code]
