"""Where every picture in flight is. Pure: no process, no file, no clock of its own."""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from maskdrop.death import Death
from maskdrop.inbox.supply import Candidate
from maskdrop.ticket import (
    Facts,
    Fault,
    Infer,
    Judged,
    Locate,
    Prepare,
    Quarantine,
    Region,
    Save,
    Stage,
    Task,
    Ticket,
)


class Step(Enum):
    """What is to be done next with a picture; the value names its queue."""

    PREPARE = "preprocess"
    INFER = "infer"
    LOCATE = "locate"
    SAVE = "save"
    QUARANTINE = "quarantine"

    @property
    def stage(self) -> Stage:
        """The workers that do it. Save workers do every final step of a picture."""
        return _STAGES.get(self, Stage.SAVE)


_STAGES = {Step.PREPARE: Stage.PREPROCESS, Step.INFER: Stage.INFER, Step.LOCATE: Stage.PREPROCESS}


@dataclass(frozen=True)
class Flight:
    """A picture between inbox and outbox.

    Attributes:
        step: the next step, or the one being done if a worker has the picture.
        worker: name of the worker that holds it; None while it waits.
        working: whether that worker is working on it; if not, the worker has it queued.
        attempts: how often a worker died while working on it in this step. Each step counts from 0: a
            picture that got through the step where a worker died was not the cause.
        condemned_after: attempts of the step in which it was found to be at fault.
        regions: where the faces are that get a second look, once they are known.
        milliseconds: time spent in each stage so far.
    """

    ticket: Ticket
    slot: int
    accepted_at: float
    step: Step = Step.PREPARE
    worker: str | None = None
    working: bool = False
    attempts: int = 0
    condemned_after: int = 0
    facts: Facts | None = None
    fault: Fault | None = None
    regions: tuple[Region, ...] = ()
    judged: Judged | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.ticket.number

    def task(self, company: int = 1) -> Task:
        """The message that has a worker do the next step; ``company``: how many flights there are."""
        match self.step:
            case Step.PREPARE:
                return Prepare(self.ticket, self.slot)
            case Step.INFER:
                return Infer(self.number, self.slot, len(self.regions), company)
            case Step.LOCATE:
                return Locate(self.ticket, self.slot)
            case Step.SAVE:
                assert self.facts is not None
                return Save(self.ticket, self.slot, self.facts, self.regions, self.judged, self.milliseconds)
            case Step.QUARANTINE:
                assert self.fault is not None
                return Quarantine(self.ticket, self.fault, self.condemned_after)


def is_hopeless(flight: Flight, max_attempts: int) -> bool:
    """Whether so many workers died while quarantining the picture that it is to be left where it is."""
    return flight.step is Step.QUARANTINE and flight.attempts >= max_attempts


class Pipeline:
    """Owner of all flights and of the numbers of free slots.

    A flight holds a slot from its acceptance to its end. So there are never more flights than
    slots, which bounds every queue here.
    """

    def __init__(self, slots: int) -> None:
        self._free: deque[int] = deque(range(slots))
        self._flights: dict[int, Flight] = {}
        self._waiting: dict[Step, deque[int]] = {step: deque() for step in Step}
        self._held: defaultdict[str, set[int]] = defaultdict(set)
        self._next_number = 1

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, number: int) -> bool:
        return number in self._flights

    def __getitem__(self, number: int) -> Flight:
        return self._flights[number]

    @property
    def free_slots(self) -> int:
        return len(self._free)

    def waiting(self, step: Step) -> int:
        """Pictures in a step's queue."""
        return len(self._waiting[step])

    def accept(self, candidate: Candidate, now: float) -> Flight:
        """Begin a picture's flight; there must be a free slot."""
        ticket = Ticket(self._next_number, candidate.path, candidate.identity)
        self._next_number += 1
        times = {"settle": candidate.settle_ms}
        flight = Flight(ticket, self._free.popleft(), now, milliseconds=times)
        self._flights[flight.number] = flight
        self._waiting[Step.PREPARE].append(flight.number)
        return flight

    def is_at(self, step: Step) -> bool:
        """Whether any flight is waiting for this step or in it."""
        return any(flight.step is step for flight in self._flights.values())

    def next_for(self, step: Step) -> Flight | None:
        """The flight that `assign` would give out next; None if none waits."""
        queue = self._waiting[step]
        return self._flights[queue[0]] if queue else None

    def assign(self, step: Step, worker: str) -> Flight:
        """Give the next waiting flight to a worker. An inference worker itself says when it begins."""
        number = self._waiting[step].popleft()
        self._held[worker].add(number)
        return self._change(number, worker=worker, working=step is not Step.INFER)

    def begin(self, worker: str, numbers: tuple[int, ...]) -> None:
        """Of all the flights that the worker holds, it is working on these now."""
        for number in self._held[worker]:
            if self._flights[number].working is not (number in numbers):
                self._change(number, working=number in numbers)

    def prepared(self, number: int, facts: Facts, milliseconds: float) -> None:
        """The picture is in its slot; the network is next."""
        self._queue(number, Step.INFER, {"preprocess": milliseconds}, facts=facts)

    def inferred(
        self, number: int, milliseconds: float, is_small: bool = False, judged: Judged | None = None
    ) -> None:
        """The labels are there. A picture with small faces gets a second look, once."""
        again = bool(self._flights[number].regions)
        step = Step.LOCATE if is_small and not again else Step.SAVE
        self._queue(number, step, {"infer again" if again else "infer": milliseconds}, judged=judged)

    def located(self, number: int, regions: tuple[Region, ...], milliseconds: float) -> None:
        """Views of these regions are in the slot; if there are none, the first labels stand."""
        step = Step.INFER if regions else Step.SAVE
        self._queue(number, step, {"locate": milliseconds}, regions=regions)

    def condemn(self, number: int, fault: Fault) -> None:
        """The picture goes to quarantine; its reason file states the attempts."""
        attempts = self._flights[number].attempts
        self._queue(number, Step.QUARANTINE, {}, fault=fault, condemned_after=attempts)

    def put_back(self, number: int) -> None:
        """The step could not be done now; this picture is the first to try it again."""
        self._take_from(number).appendleft(number)

    def put_last(self, number: int) -> None:
        """The step could not be done now; this picture tries it again after the others."""
        self._take_from(number).append(number)

    def _take_from(self, number: int) -> deque[int]:
        """Take the picture from wherever it is, and return the queue of its step."""
        self._leave_place(self._flights[number])
        return self._waiting[self._change(number, worker=None, working=False).step]

    def finish(self, number: int) -> Flight:
        """The flight is over; its slot is free."""
        flight = self._flights.pop(number)
        self._leave_place(flight)
        self._free.append(flight.slot)
        return flight

    def is_idle(self, worker: str) -> bool:
        """Whether the worker holds nothing, neither at work nor queued."""
        return not self._held[worker]

    def held_by(self, worker: str) -> list[Flight]:
        """Flights that the worker is working on or has queued, the oldest first."""
        return [self._flights[number] for number in sorted(self._held[worker])]

    def at_work(self, worker: str) -> int:
        """How many pictures the worker is working on; queued ones don't count."""
        return sum(self._flights[number].working for number in self._held[worker])

    def lost(self, worker: str, death: Death, max_attempts: int) -> list[Flight]:
        """A worker died: the flights it held go round again, each at the step it was in.

        Each picture that it was working on counts an attempt. A picture that it was working on alone is
        condemned after the last attempt; if that attempt was to quarantine it, it `is_hopeless`.

        Returns:
            The flights that it held, as they are now.
        """
        held = self.held_by(worker)
        at_work = sum(flight.working for flight in held)
        for flight in reversed(held):
            attempts = flight.attempts + flight.working
            self._change(flight.number, attempts=attempts)
            self.put_back(flight.number)
            alone = flight.working and at_work == 1
            if alone and attempts >= max_attempts and flight.step is not Step.QUARANTINE:
                stage = flight.step.value
                message = f"the {stage} worker was lost at it in {attempts} tries; last: {death.cause}"
                self.condemn(flight.number, Fault(flight.step.stage, death.ending.value, message))
        return [self._flights[flight.number] for flight in held]

    def _queue(self, number: int, step: Step, spent: Mapping[str, float], **found: object) -> None:
        """Note what a step took and found, and queue the picture for the next one, with no attempts yet."""
        flight = self._flights[number]
        self._leave_place(flight)
        times = {**flight.milliseconds, **spent}
        place = {"step": step, "worker": None, "working": False, "attempts": 0, "milliseconds": times}
        self._change(number, **{**place, **found})
        self._waiting[step].append(number)

    def _leave_place(self, flight: Flight) -> None:
        """Take a flight out of its step's queue, or from the worker that holds it."""
        if flight.worker is None:
            self._waiting[flight.step].remove(flight.number)
        else:
            self._held[flight.worker].discard(flight.number)

    def _change(self, number: int, **changes: object) -> Flight:
        self._flights[number] = replace(self._flights[number], **changes)  # type: ignore[arg-type]
        return self._flights[number]
