"""Who gets the next ticket: pictures from the inbox become flights, and flights go to workers."""

import time

from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.inbox.supply import Supply
from maskdrop.supervisor.child import Child
from maskdrop.supervisor.crew import Crew
from maskdrop.supervisor.journal import Journal
from maskdrop.supervisor.pipeline import Flight, Pipeline, Step
from maskdrop.ticket import Stage


class Dispatch:
    """Moves tickets along and owns nothing: flights belong to the pipeline, workers to the crew."""

    def __init__(
        self, intake: Supply, pipeline: Pipeline, crew: Crew, journal: Journal, most_held: int
    ) -> None:
        self._intake, self._pipeline, self._crew, self._journal = intake, pipeline, crew, journal
        self._most_held = most_held

    def accept(self, now: float) -> None:
        """Take settled pictures while there are free slots."""
        while self._pipeline.free_slots and (candidate := self._intake.take()) is not None:
            self._pipeline.accept(candidate, now)
            self._journal.accepted()
            crash_point(CrashPoint.TICKET_ACCEPTED)

    def give(self, stage: Stage, steps: tuple[Step, ...], most: int | None = None) -> None:
        """Give one ticket each to the idle workers of a stage, or ``most`` of them; earlier steps first."""
        idle = [child for child in self._crew.ready(stage) if self._pipeline.is_idle(child.name)]
        for child in idle[:most]:
            step = next((step for step in steps if self._pipeline.waiting(step)), None)
            if step is None:
                return
            self._hand(step, child)

    def give_batches(self) -> None:
        """Keep some batches with each inference worker: as many pictures as the plan has it hold. The worker
        that holds fewest gets the next picture. A picture at which a worker died goes alone.
        """
        held = {child: self._pipeline.held_by(child.name) for child in self._crew.ready(Stage.INFER)}
        while (flight := self._pipeline.next_for(Step.INFER)) is not None:
            open_to_it = [child for child, others in held.items() if self._may_join(flight, child, others)]
            if not open_to_it:
                return
            child = min(open_to_it, key=lambda one: len(held[one]))
            self._hand(Step.INFER, child)
            held[child].append(flight)

    def _may_join(self, flight: Flight, child: Child, others: list[Flight]) -> bool:
        must_be_alone = flight.attempts > 0 or any(other.attempts > 0 for other in others)
        return len(others) < min(self._most_held, child.most_tasks) and not (others and must_be_alone)

    def _hand(self, step: Step, child: Child) -> None:
        if self._pipeline.is_idle(child.name):
            # Its silence counts from its first ticket, not from the start of this round, perhaps long ago.
            child.hear(time.monotonic())
        child.send(self._pipeline.assign(step, child.name).task(len(self._pipeline)))
