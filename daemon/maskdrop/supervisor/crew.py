"""All workers: started, watched, started again. Each has a place, which outlives the worker in it."""

import logging
import time
from collections import Counter
from dataclasses import dataclass

from maskdrop.death import Death, Ending
from maskdrop.health.file import WorkerHealth
from maskdrop.supervisor.child import Child, ChildState
from maskdrop.supervisor.premises import Premises
from maskdrop.ticket import Cost, Ready, Stage, Stop
from maskdrop.topology.worker import Workplace

logger = logging.getLogger("maskdrop")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""Before a worker is started again that died before it was ready, or idle soon after, there is a wait; it
doubles with each failure, from the first of these to the second."""


STARTS = 3
"""After so many failed starts, a worker for a new configuration is given up."""


def wait_before_start(failures: int) -> float:
    """Seconds to wait after so many failed starts in a row: 0, 0.5, 1, 2, … 30, 30."""
    if failures == 0:
        return 0.0
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 16))


@dataclass(frozen=True)
class Model:
    """What the inference workers say they run; empty until the first one has said it."""

    device: str = ""
    precision: str = ""
    name: str = ""


@dataclass
class Place:
    """A worker's place. It stays when the worker in it dies and another one takes over.

    Attributes:
        was_ready: whether any worker has been ready in it.
        died_ready: whether the latest one to die had been ready.
        stayed: whether a worker was ready in it under earlier premises than those in use.
        is_excused: whether its worker was started under earlier premises, so that a failure to start says
            nothing of those in use.
    """

    workplace: Workplace
    child: Child | None = None
    restarts: int = 0
    failures: int = 0
    start_at: float = 0.0
    last_pid: int = 0
    last_death: Death | None = None
    was_ready: bool = False
    died_ready: bool = False
    stayed: bool = False
    is_excused: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether the worker in it can be given tickets."""
        return self.child is not None and self.child.is_ready

    def begin_anew(self) -> None:
        """Stay while other places are exchanged. If no worker was ever ready here, forget the failures: their
        cause may be mended."""
        self.stayed = self.stayed or self.was_ready
        if not self.was_ready:
            self.is_excused = self.child is not None
            self.failures, self.last_death, self.start_at = 0, None, 0.0


class Crew:
    """Owner of all worker processes.

    Attributes:
        retired: workers that were dismissed because others take their places.
        model: what the latest inference worker runs.
        was_complete: whether all workers were ready at some time.
        restarts: workers started in place of dead ones, by stage.
        costs: what a picture costs each stage, as one of its workers measured when it started.
    """

    def __init__(self, premises: Premises) -> None:
        self.places = [Place(workplace) for workplace in _workplaces(premises)]
        self.retired: list[Child] = []
        self.model = Model()
        self.was_complete = False
        self.restarts: Counter[Stage] = Counter()
        self.costs: dict[Stage, Cost] = {}

    def move_to(self, premises: Premises, now: float) -> int:
        """Keep the workers that suit the new premises; retire the others. None may hold anything.

        A place that stays, and never had a ready worker, starts with no failures under the new premises.

        Returns:
            How many workers are to be started.
        """
        before = {place.workplace.name: place for place in self.places}
        self.places = []
        for workplace in _workplaces(premises):
            old = before.get(workplace.name)
            if old is not None and self._may_stay(old, workplace):
                self.places.append(before.pop(workplace.name))
                old.begin_anew()
            else:
                self.places.append(Place(workplace, restarts=old.restarts if old else 0))
                if workplace.measures:
                    self.costs.pop(workplace.stage, None)
        for place in before.values():
            if place.child is not None:
                self.retired.append(place.child)
                _dismiss(place.child, now)
        return sum(place.child is None for place in self.places)

    def _may_stay(self, place: Place, workplace: Workplace) -> bool:
        """Whether a worker may go on at the new workplace; not if that asks for a cost not measured yet."""
        is_asked_first = workplace.measures and not place.workplace.measures
        measured = not is_asked_first or workplace.stage in self.costs
        return measured and place.workplace.is_like(workplace)

    def dismiss_all(self, now: float) -> None:
        """Have all workers end. None may hold anything."""
        for child in self.children:
            _dismiss(child, now)

    @property
    def children(self) -> list[Child]:
        """Workers that are alive, or whose death is not yet dealt with."""
        return [place.child for place in self.places if place.child is not None] + self.retired

    def ready(self, stage: Stage) -> list[Child]:
        """Workers of a stage that can be given tickets."""
        return [p.child for p in self.places if p.child and p.child.stage is stage and p.is_ready]

    @property
    def all_ready(self) -> bool:
        """Whether every place has a worker that can be given tickets."""
        return all(place.is_ready for place in self.places)

    @property
    def trouble(self) -> str | None:
        """Why the daemon is degraded: a worker that can't start; None if there is none."""
        for place in self.places:
            if place.failures and not place.is_ready:
                when = "soon after it was ready" if place.died_ready else "while starting"
                return f"worker {place.workplace.name}, {when}, {place.last_death}"
        return None

    def was_ready(self, child: Child) -> bool:
        """Whether this worker, or one before it in its place, was ready, and so fit to work as configured."""
        return self._place_of(child).was_ready

    def has_stayed(self, child: Child) -> bool:
        """Whether its place had a ready worker under earlier premises, so that its reports say nothing of
        those in use."""
        return self._place_of(child).stayed

    @property
    def lasting_trouble(self) -> str | None:
        """Why a place that is new with these premises will have no worker; None if all will. No worker was
        ever ready there in `STARTS` starts, or in one if the worker hung, because that took long already."""
        for place in self.places:
            if not place.was_ready and (death := place.last_death) is not None:
                starts = 1 if death.ending is Ending.HUNG else STARTS
                if place.failures >= starts:
                    return f"worker {place.workplace.name} {death}"
        return None

    def start_due(self, now: float) -> list[Child]:
        """Start the workers whose time has come, and return them."""
        started = []
        for place in self.places:
            if place.child is None and now >= place.start_at:
                try:
                    place.child = Child(place.workplace, time.monotonic())
                except OSError as error:  # a limit of processes, descriptors or memory
                    self._note_failure(place, error, now)
                    continue
                if place.last_death is not None:
                    place.restarts += 1
                    self.restarts[place.workplace.stage] += 1
                place.last_pid = place.child.pid
                started.append(place.child)
        return started

    def _note_failure(self, place: Place, error: OSError, now: float) -> None:
        """The system refused to start a process; try again as after a death."""
        place.died_ready = False
        place.failures += 1
        place.start_at = now + wait_before_start(place.failures)
        news = Death(Ending.DIED, f"a limit of the system: {error.strerror}")
        if place.last_death != news:
            logger.error("worker %s can't be started: %s", place.workplace.name, error.strerror)
        place.last_death = news

    def next_start(self) -> float | None:
        """When the next dead worker is to be started again."""
        times = [place.start_at for place in self.places if place.child is None]
        return min(times, default=None)

    def note_ready(self, child: Child, report: Ready) -> None:
        """A worker can be given tickets."""
        child.note_ready()
        if child in self.retired:
            return
        place = self._place_of(child)
        place.was_ready = True
        if child.stage is Stage.INFER:
            self.model = Model(report.device, report.precision, report.model)
        if report.cost is not None:
            self.costs.setdefault(child.stage, report.cost)
        self.was_complete = self.was_complete or self.all_ready

    def bury_retired(self, child: Child) -> None:
        self.retired.remove(child)
        child.bury()

    def note_death(self, child: Child, now: float) -> Death:
        """Bury a dead worker and plan its successor's start.

        Returns:
            What it died of.
        """
        place = self._place_of(child)
        place.died_ready = child.state is ChildState.READY
        proven = child.has_proven_itself(now)
        place.last_death = child.bury()
        place.child = None
        if proven:
            place.failures = 0
        elif not place.is_excused:
            place.failures += 1
        place.is_excused = False
        place.start_at = now + wait_before_start(place.failures)
        return place.last_death

    def kill_all(self) -> None:
        """Kill every worker, whatever it is doing; the deaths are still to be dealt with."""
        for child in self.children:
            child.kill()

    def end_all(self) -> None:
        """Kill every worker that is left, and wait until all are gone."""
        self.kill_all()
        for child in self.children:
            child.bury()

    def health(self) -> list[WorkerHealth]:
        """Each place as the health file shows it."""
        return [
            WorkerHealth(p.workplace.stage.value, p.last_pid, p.child is not None, p.is_ready, p.restarts)
            for p in self.places
        ]

    @property
    def is_complete(self) -> bool:
        """Whether the workers are exactly those that the premises ask for, and all are ready."""
        return self.all_ready and not self.retired

    def _place_of(self, child: Child) -> Place:
        return next(place for place in self.places if place.child is child)


def _dismiss(child: Child, now: float) -> None:
    """Have a worker end. One that is still starting is killed: it would read a message only once ready."""
    child.hear(now)
    if child.state is ChildState.READY:
        child.send(Stop())
    else:
        child.kill()


def _workplaces(premises: Premises) -> list[Workplace]:
    plan, settings = premises.plan, premises.settings
    is_open = "auto" in (settings.workers.preprocess, settings.workers.save)

    def workplace(
        stage: Stage, index: int, threads: tuple[int, int] = (1, 1), device: str = "cpu"
    ) -> Workplace:
        name, measures = f"{stage.value}-{index}", is_open and index == 0
        share = (premises.folders, premises.slots, premises.lock)
        return Workplace(stage, name, settings, *share, *threads, device, measures)

    return [
        *(workplace(Stage.PREPROCESS, index) for index in range(plan.preprocess)),
        *(
            workplace(Stage.INFER, index, (plan.threads, plan.most_threads), device)
            for index, device in enumerate(plan.devices)
        ),
        *(workplace(Stage.SAVE, index) for index in range(plan.save)),
    ]
