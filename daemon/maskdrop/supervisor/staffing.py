"""How many workers each stage has where that is ``auto``: as many as measurements at the start call for, and
more if pictures turn out to cost more than the portrait measured with, or the disk more than then."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from maskdrop.events import Event
from maskdrop.log import tell
from maskdrop.machine.cores import usable_cores
from maskdrop.machine.processor_time import processor_seconds
from maskdrop.supervisor.busy import BusyTime
from maskdrop.supervisor.crew import Crew
from maskdrop.supervisor.pipeline import Pipeline, Step
from maskdrop.supervisor.plan import MOST_WAITERS, WAITERS_BUSY, WAITING, Plan, plan_for, useful_workers
from maskdrop.supervisor.renewal import Renewal
from maskdrop.ticket import Stage

logger = logging.getLogger("maskdrop")

LOOK_S = 0.25
"""Seconds between two looks at whether a stage holds up the others."""

FULL = 0.95
"""A stage whose workers are busy for this share of the time can take no more."""

HUNGRY = 0.8
"""Inference workers that have less than this share of the pictures they could take wait for other stages."""

STAFFED = (Stage.PREPROCESS, Stage.SAVE)
"""Stages that may get more workers."""

Computed = Mapping[Stage, Mapping[int, float]]
"""Seconds of processor time that each worker of a stage has used, by process number."""


class Staffing:
    """Decides on the numbers of workers and owns none: plans belong to the renewal, workers to the crew.

    Stages only grow. A new configuration, or a new start, begins again from what was measured.
    """

    def __init__(self, crew: Crew, renewal: Renewal, busy: BusyTime) -> None:
        self._crew, self._renewal, self._busy = crew, renewal, busy
        self._filled = BusyTime()
        self._was_told = False
        self._look(0.0, self._processor_seconds())

    def review(self, now: float, pipeline: Pipeline) -> None:
        """Start more workers if there should be more. Called when every worker is ready."""
        plan = self._renewal.premises.plan
        wanted = self._as_measured(plan) or self._as_needed(plan, now, pipeline)
        if wanted is not None:
            self._look(now, self._processor_seconds())
            self._renewal.replan(wanted)
            self._crew.move_to(self._renewal.premises, now)
        if not self._was_told and self._crew.is_complete:  # the added ones too
            self._was_told = True
            self._tell(self._renewal.premises.plan)

    def note_work(self, now: float, pipeline: Pipeline) -> None:
        """Called after each round of the supervisor's loop; see `BusyTime`."""
        at_work = [pipeline.at_work(worker.name) for worker in self._crew.ready(Stage.INFER)]
        full = workers_in_full(at_work, self._renewal.premises.plan.at_once)
        self._filled.note(now, {Stage.INFER: full})

    def _as_measured(self, plan: Plan) -> Plan | None:
        """The plan that follows from what workers measured; None if that is no news."""
        costs = self._crew.costs
        if len(costs) < len(Stage) or costs == plan.costs:
            return None
        measured = plan_for(self._renewal.premises.as_read, plan.devices, dict(costs))
        times = ", ".join(f"{stage.value} {costs[stage].milliseconds:.1f} ms" for stage in Stage)
        logger.info("measured for a picture: %s", times)
        # Only these: pictures are under way, and cores or memory may have changed since slots were made.
        preprocess = min(plan.most_preprocess, max(plan.preprocess, measured.preprocess))
        save = min(plan.most_save, max(plan.save, measured.save))
        return replace(plan, preprocess=preprocess, save=save, costs=measured.costs)

    def _as_needed(self, plan: Plan, now: float, pipeline: Pipeline) -> Plan | None:
        """A plan with more workers for a full stage that pictures wait for, while inference waits for
        pictures. If none wait, more workers would be idle: a single large picture fills a stage too."""
        if now - self._looked_at < LOOK_S:
            return None
        counts = {Stage.PREPROCESS: plan.preprocess, Stage.SAVE: plan.save, Stage.INFER: len(plan.devices)}
        most = {Stage.PREPROCESS: plan.most_preprocess, Stage.SAVE: plan.most_save}
        since = now - self._looked_at
        spent = self._spent()
        shares = {stage: (spent[stage] - self._seconds[stage]) / since / counts[stage] for stage in Stage}
        before, computed = self._computed, self._processor_seconds()
        self._look(now, computed)
        if shares[Stage.INFER] >= HUNGRY:
            return None
        changes = {}
        for stage in STAFFED:
            count = counts[stage]
            waiting = sum(pipeline.waiting(step) for step in Step if step.stage is stage)
            if shares[stage] < FULL or not waiting or count >= most[stage]:
                continue
            computing = share_computing(before[stage], computed[stage], since)
            useful = min(most[stage], useful_workers(usable_cores(), computing))
            if count < useful:
                more = min(useful, more_workers(count, computing, shares[Stage.INFER]))
                logger.info("%s holds up the others: %d workers instead of %d", stage.value, more, count)
                changes[stage.value] = more
        return replace(plan, **changes) if changes else None  # type: ignore[arg-type]

    def _look(self, now: float, computed: Computed) -> None:
        self._looked_at, self._seconds, self._computed = now, self._spent(), computed

    def _spent(self) -> dict[Stage, float]:
        """Worker-seconds that each stage was busy until now; of inference, those of `workers_in_full`."""
        return {**self._busy.seconds, Stage.INFER: self._filled.seconds[Stage.INFER]}

    def _processor_seconds(self) -> Computed:
        return {stage: _computed_by(child.pid for child in self._crew.ready(stage)) for stage in STAFFED}

    def _tell(self, plan: Plan) -> None:
        devices, precision = ", ".join(dict.fromkeys(plan.devices)), self._crew.model.precision
        tell(
            logging.INFO,
            Event.READY,
            f"ready: {plan.preprocess} preprocess, {len(plan.devices)} infer ({devices}, {precision}), "
            f"{plan.save} save, {plan.slots} slots",
        )


def workers_in_full(at_work: Iterable[int], places: int) -> float:
    """How many inference workers are at work. One that could take more pictures in the same time counts as a
    fraction: a GPU that is given one picture after the other is never idle either.

    Args:
        at_work: pictures that each worker is working on.
        places: see `Plan.at_once`.
    """
    return sum(min(1.0, pictures / places) for pictures in at_work)


def more_workers(count: int, computing: float, inferring: float) -> int:
    """How many workers a full stage should have: half as many more, or, if they mostly wait for a disk, as
    many as keep inference busy all the time while they are busy `WAITERS_BUSY` of theirs.

    Args:
        computing: share of its time for which a worker of the stage has a core, 0 to 1.
        inferring: share of its full load that inference has with ``count`` workers, 0 to 1.
    """
    half_more = count + max(1, count // 2)
    if computing > WAITING:
        return half_more
    least = 1 / MOST_WAITERS  # there are never more workers anyway
    return max(half_more, math.ceil(count / max(inferring, least) / WAITERS_BUSY))


def _computed_by(pids: Iterable[int]) -> Mapping[int, float]:
    return {pid: seconds for pid in pids if (seconds := processor_seconds(pid)) is not None}


def share_computing(before: Mapping[int, float], after: Mapping[int, float], since: float) -> float:
    """Share of its time for which a worker had a core, 0 to 1; 1 if that isn't known.

    Args:
        before, after: processor seconds of each worker, by process number, ``since`` seconds apart.
    """
    spent = [seconds - before[pid] if pid in before else since for pid, seconds in after.items()]
    return min(1.0, sum(spent) / since / len(spent)) if spent else 1.0
