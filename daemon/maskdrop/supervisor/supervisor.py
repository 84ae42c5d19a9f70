"""The supervisor: one loop that waits for everything at once and moves tickets along.

      inbox events ─┐                                          ┌─ signals
                    ▼                                          ▼
    ┌─ supervisor ─ select(events, reports, log lines, deaths, deadlines) ─────────────┐
    │   intake ──► PREPARE, LOCATE queue   INFER queue   SAVE queue, QUARANTINE queue  │
    └──────┬───────────────▲──┬───────────────▲──┬──────────────▲──┬───────────▲───────┘
           │ Prepare,      │  │Prepared,      │  │Inferred      │  │Saved,     │
           │ Locate        │  │Located        │  │              │  │Quarantined│
           └──────► preprocess 0…N          infer, some a device     save 0…M
                           │                  │    ▲                  ▲
                           └──► slots: picture┘    └ labels ──────────┘   (shared memory)

Every arrow to or from a worker is a pipe of that worker's own. A death closes it and fires
the worker's sentinel, and the flights it held go round again.
"""

import logging
import math
import selectors
import time
from functools import partial

from maskdrop.config_file import ConfigurationError
from maskdrop.death import Death, Ending
from maskdrop.events import Event
from maskdrop.health.file import State
from maskdrop.log import tell
from maskdrop.supervisor.child import Child
from maskdrop.supervisor.course import Course
from maskdrop.supervisor.crew import Crew
from maskdrop.supervisor.dispatch import Dispatch
from maskdrop.supervisor.errand import Errand
from maskdrop.supervisor.notices import Notices
from maskdrop.supervisor.patience import LostTime, Patience
from maskdrop.supervisor.pipeline import Pipeline, Step
from maskdrop.supervisor.premises import Premises
from maskdrop.supervisor.pulse import Pulse
from maskdrop.supervisor.renewal import Renewal
from maskdrop.supervisor.reports import Reports
from maskdrop.supervisor.signals import Signals
from maskdrop.supervisor.staffing import Staffing
from maskdrop.supervisor.stall import Stall
from maskdrop.supervisor.vigil import Vigil
from maskdrop.systemd import ServiceManager
from maskdrop.ticket import Stage

logger = logging.getLogger("maskdrop")


class Supervisor:
    """The daemon's parent process, or a batch's."""

    def __init__(self, premises: Premises, manager: ServiceManager, errand: Errand) -> None:
        self._errand = errand
        self._selector = selectors.DefaultSelector()
        self._signals = Signals()
        self._selector.register(self._signals.wake_end, selectors.EVENT_READ, self._signals.clear)
        self._course = Course()
        self._crew = Crew(premises)
        self._journal = errand.journal
        self._pulse = Pulse(premises.settings)
        self._renewal = Renewal(premises, errand.read_again or (lambda: premises.as_read))
        self._staffing = Staffing(self._crew, self._renewal, self._pulse.busy)
        self._notices = Notices(manager)
        self._lost_time, self._awake_at = LostTime(), time.monotonic()
        self._move_in(premises)

    def _move_in(self, premises: Premises) -> None:
        """Make everything for these premises that need not outlive a change of configuration."""
        settings, plan = premises.settings, premises.plan
        workers = settings.workers
        self._intake = self._errand.supply(premises, self._signals.wake)
        self._pipeline = Pipeline(plan.slots)
        self._dispatch = Dispatch(self._intake, self._pipeline, self._crew, self._journal, plan.held)
        self._patience = Patience(workers.stage_timeout_s, workers.start_timeout_s)
        self._vigil = Vigil(workers.stage_timeout_s, workers.start_timeout_s, time.monotonic())
        self._stall = Stall()
        self._reports = Reports(
            self._pipeline,
            self._intake,
            self._crew,
            self._journal,
            self._stall,
            self._course,
            self._renewal,
        )

    def run(self) -> int:
        """Work until told to stop, and return the exit code."""
        self._signals.install(reloads=self._errand.read_again is not None)
        self._intake.start()
        self._beat(time.monotonic())
        while not self._is_over():
            self._take_in()
            now = time.monotonic()
            self._heed_signals(now)
            if not self._course.draining:
                self._intake.advance(now)
            self._renew(now)
            self._start_workers(now)
            self._move_on(now)
            self._beat(now)
        self._intake.leave()
        self._write_health(State.STOPPED, self._course.reason)
        tell(logging.INFO, Event.ENDED, f"ended with exit code {self._course.exit_code}")
        return self._course.exit_code

    @property
    def end_signal(self) -> int:
        """Number of the signal that asked for the end; 0 if none did."""
        return self._signals.last_term

    def leave(self) -> None:
        """Give back lock and slots. Workers are alive here only if the loop failed; they must be ended, or
        Python would wait at its exit for them, and they for the supervisor."""
        self._crew.end_all()
        self._renewal.leave()

    def _take_in(self) -> None:
        """Wait for whatever comes first and handle all that came, then end the workers that are late.
        While nothing happens, the health file is renewed here, without a round of the loop."""
        due = self._next_due(time.monotonic())
        while True:
            began = time.monotonic()
            wanted = max(0.0, min(due, self._pulse.next_at) - began)
            events = self._selector.select(wanted)
            now = time.monotonic()
            if lost := self._lost_time.of(began - self._awake_at, wanted, now - began):
                self._forgive(lost, now)
            self._awake_at = now
            if events or now >= due or not self._pulse.renew(now):
                break
        for key, _ in events:
            if self._selector.get_map().get(key.fd) is key:  # not unregistered by an earlier event
                key.data()
        self._end_late_workers(now)

    # What is next in time.

    def _is_over(self) -> bool:
        return self._course.stopping and not self._crew.children

    def _next_due(self, now: float) -> float:
        """When there is something to do even if no event comes; the pulse is not included."""
        deadlines: list[float | None] = [self._notices.next_feed, self._notices.next_extension]
        deadlines += [self._deadline_of(child) for child in self._crew.children]
        if not self._course.stopping:
            deadlines.append(self._crew.next_start())
        if not self._course.draining and self._renewal.pending is None:
            deadlines.append(self._stall.next_try)
        if self._course.is_patient:
            deadlines.append(self._course.drain_deadline)
        if not self._course.draining:
            deadlines.append(now + self._intake.wait(now))
        return min((deadline for deadline in deadlines if deadline is not None), default=math.inf)

    def _beat(self, now: float) -> None:
        """Write the health file if it is due or the state changed; tell the service manager."""
        state, reason = self._state()
        self._pulse.note_work(now, self._pipeline, self._crew)
        self._staffing.note_work(now, self._pipeline)
        if self._pulse.take_turn(now, state, reason):
            self._write_health(state, reason)
        self._notices.ask_for_time(self._course.drain_deadline, now)
        if self._notices.is_hungry(now):
            busy = {step.stage for step in Step if self._pipeline.waiting(step)}
            busy |= {child.stage for child in self._crew.children if not self._pipeline.is_idle(child.name)}
            self._notices.feed(self._vigil.silent(busy, now), now)

    def _write_health(self, state: State, reason: str) -> None:
        now, record = time.monotonic(), self._journal.record
        plan = self._renewal.premises.plan
        health = self._pulse.snapshot(
            state, reason, now, record, self._pipeline, self._intake, self._crew, plan
        )
        self._pulse.write(health, self._pulse.totals(record, self._crew))
        self._notices.tell(health, self._renewal.under_way)

    # Signals and the end.

    def _heed_signals(self, now: float) -> None:
        course, count = self._course, self._signals.term_count
        if count and not course.draining:
            self.handle_term(now)
        cut_short = count > 1 or (course.drain_deadline is not None and now >= course.drain_deadline)
        if cut_short and course.is_patient:
            self._cut_short("a second signal" if count > 1 else "drain.drain_timeout_s is over")
        takes_no_more = course.draining or self._intake.is_over
        if takes_no_more and not course.stopping and not len(self._pipeline):
            self._stop_workers(now)
        if self._signals.take_hup():
            self.handle_hup()

    def handle_term(self, now: float) -> None:
        """Begin to drain: take nothing more, finish what holds a slot."""
        longest = self._renewal.premises.settings.drain.drain_timeout_s
        self._course.drain(now + longest)
        self._notices.stopping(now + longest, now)
        self._intake.stop()
        message = f"draining: {len(self._pipeline)} in flight, {self._intake.backlog} stay in the inbox"
        tell(logging.INFO, Event.DRAINING, message)

    def handle_hup(self) -> None:
        """Read the configuration again, unless the end has begun."""
        if not self._course.ending:
            self._notices.reloading(time.monotonic())
            self._renewal.request()
            if not self._renewal.under_way:
                self._write_health(*self._state())  # there is nothing to wait for

    def _cut_short(self, why: str) -> None:
        if in_flight := len(self._pipeline):
            logger.warning("ending at once (%s): %d in flight stay in the inbox", why, in_flight)
        self._course.hurry(in_flight)
        self._crew.kill_all()

    def _stop_workers(self, now: float) -> None:
        self._course.stop()
        self._crew.dismiss_all(now)

    # A new configuration.

    def _renew(self, now: float) -> None:
        if self._crew.is_complete and self._renewal.confirm():
            self._write_health(*self._state())
        if self._course.ending:
            return
        if self._renewal.pending is None:
            self._review(now)
        elif all(self._pipeline.is_idle(child.name) for child in self._crew.children):
            self._move_to_pending(now)

    def _review(self, now: float) -> None:
        """See that there are enough workers; if those for a new configuration can't start, go back."""
        if self._crew.is_complete:
            self._staffing.review(now, self._pipeline)
        elif self._renewal.can_go_back and (trouble := self._crew.lasting_trouble):
            self._renewal.go_back(trouble)

    def _move_to_pending(self, now: float) -> None:
        """Take up the pending premises, while no worker holds a picture. Waiting pictures are still in the
        inbox, where the new intake finds them."""
        premises = self._renewal.take_up()
        self._intake.leave()
        self._move_in(premises)
        try:
            self._pulse.follow(premises.settings)
        except ConfigurationError as error:  # the port was free when the configuration was checked
            logger.error("no metrics: %s", error)
        count = self._crew.move_to(premises, now)
        self._intake.start()
        self._write_health(*self._state())
        logger.info("the configuration is taken up: %d workers are started for it", count)

    # Workers.

    def _start_workers(self, now: float) -> None:
        if self._course.stopping:
            return
        for child in self._crew.start_due(now):
            register = partial(self._selector.register, events=selectors.EVENT_READ)
            register(child.reports, data=partial(self._on_report, child))
            register(child.stderr, data=partial(self._on_lines, child))
            register(child.sentinel, data=partial(self._on_death, child))

    def _deadline_of(self, child: Child) -> float | None:
        """When the worker will be late; None if nothing is expected of it."""
        if child.is_ended:
            return None
        is_over = self._course.stopping or child in self._crew.retired
        busy = is_over or not self._pipeline.is_idle(child.name)
        return self._patience.deadline(child.state, busy, child.heard_at)

    def _forgive(self, seconds: float, now: float) -> None:
        """Ignore so many seconds: the supervisor itself was stopped, and perhaps its workers with it."""
        self._vigil.forgive(seconds, now)
        for child in self._crew.children:
            child.forgive(seconds, now)

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
            return
        child.hear(time.monotonic())
        self._vigil.note_answer(child.stage, child.heard_at)
        self._reports.handle(child, report)

    def _on_death(self, child: Child) -> None:
        for report in child.remaining():
            self._reports.handle(child, report)
        self._journal.relay(child.name, child.last_lines())
        for end in (child.reports, child.stderr, child.sentinel):
            if end in self._selector.get_map():
                self._selector.unregister(end)
        if child in self._crew.retired:
            self._crew.bury_retired(child)
            return
        pid = child.pid
        death = self._crew.note_death(child, time.monotonic())
        if self._course.stopping:
            return
        most = self._renewal.premises.settings.workers.max_attempts
        self._reports.after_death(child, pid, death, most)

    # Moving tickets along.

    def _move_on(self, now: float) -> None:
        for step in self._stall.steps:
            if not self._pipeline.is_at(step):  # no picture is left to find out that it is mended
                self._stall.end(step)
        if self._renewal.pending is not None and not self._course.draining:
            return
        give = self._dispatch.give
        if not self._course.draining and self._stall.reason is None:
            self._dispatch.accept(now)
        give(Stage.PREPROCESS, (Step.LOCATE, Step.PREPARE))
        self._dispatch.give_batches()
        for step in (Step.QUARANTINE, Step.SAVE):
            if self._course.draining or step not in self._stall.steps:
                give(Stage.SAVE, (step,))
            elif self._stall.take_try(step, now):
                give(Stage.SAVE, (step,), most=1)

    # State.

    def _state(self) -> tuple[State, str]:
        if self._course.ending:
            return State.DRAINING, "told to stop"
        for reason in (self._stall.reason, self._intake.trouble, self._crew.trouble):
            if reason is not None:
                return State.DEGRADED, reason
        if not self._crew.was_complete:
            return State.STARTING, "workers are starting"
        return State.RUNNING, "taking up a new configuration" if self._renewal.under_way else ""
