"""How many workers each stage has, where that is ``auto``: as they measured at their start, and more where
pictures turn out to cost more than the portrait they measured with."""

import logging
from dataclasses import replace

from maskdrop.events import Event
from maskdrop.log import tell
from maskdrop.supervisor.busy import BusyTime
from maskdrop.supervisor.crew import Crew
from maskdrop.supervisor.pipeline import Pipeline, Step
from maskdrop.supervisor.plan import Plan, plan_for
from maskdrop.supervisor.renewal import Renewal
from maskdrop.ticket import Stage

logger = logging.getLogger("maskdrop")

LOOK_S = 0.25
"""Seconds after which it is looked again whether a stage holds up the others."""

FULL = 0.95
"""A stage whose workers are busy for this share of the time can take no more."""

HUNGRY = 0.8
"""Inference workers that are busy for less of the time than this wait for others."""


class Staffing:
    """Decides on the numbers of workers, and owns none: plans are the renewal's, workers the crew's.

    Stages only grow. A new configuration, or a new start, begins from what was measured.
    """

    def __init__(self, crew: Crew, renewal: Renewal, busy: BusyTime) -> None:
        self._crew, self._renewal, self._busy = crew, renewal, busy
        self._was_told = False
        self._look(0.0)

    def review(self, now: float, pipeline: Pipeline) -> None:
        """Start more workers if there should be more. Called when every worker is ready."""
        plan = self._renewal.premises.plan
        wanted = self._as_measured(plan) or self._as_needed(plan, now, pipeline)
        if wanted is not None:
            self._look(now)
            self._renewal.replan(wanted)
            self._crew.move_to(self._renewal.premises, now)
        if not self._was_told and self._crew.is_complete:  # and not before those that were added are
            self._was_told = True
            self._tell(self._renewal.premises.plan)

    def _as_measured(self, plan: Plan) -> Plan | None:
        """The plan that follows from what workers measured, if that is news."""
        costs = self._crew.costs
        if len(costs) < len(Stage) or costs == plan.costs:
            return None
        measured = plan_for(self._renewal.premises.as_read, plan.devices, dict(costs))
        times = ", ".join(f"{stage.value} {costs[stage].milliseconds:.1f} ms" for stage in Stage)
        logger.info("measured for a picture: %s", times)
        # Nothing else: pictures are under way, and cores or memory may have changed since slots were made.
        preprocess = min(plan.most_preprocess, max(plan.preprocess, measured.preprocess))
        save = min(plan.most_save, max(plan.save, measured.save))
        return replace(plan, preprocess=preprocess, save=save, costs=measured.costs)

    def _as_needed(self, plan: Plan, now: float, pipeline: Pipeline) -> Plan | None:
        """A plan with half as many more workers where pictures wait for a full stage, and inference
        for pictures. Without any that wait, more workers would have nothing to do: one large picture
        fills a stage too."""
        if now - self._looked_at < LOOK_S:
            return None
        counts = {Stage.PREPROCESS: plan.preprocess, Stage.SAVE: plan.save, Stage.INFER: len(plan.devices)}
        since = now - self._looked_at
        shares = {
            stage: (self._busy.seconds[stage] - self._seconds[stage]) / since / counts[stage]
            for stage in Stage
        }
        self._look(now)
        if shares[Stage.INFER] >= HUNGRY:
            return None
        changes = {}
        for stage, most in ((Stage.PREPROCESS, plan.most_preprocess), (Stage.SAVE, plan.most_save)):
            count = counts[stage]
            waiting = sum(pipeline.waiting(step) for step in Step if step.stage is stage)
            if shares[stage] >= FULL and waiting and count < most:
                more = min(most, count + max(1, count // 2))
                logger.info("%s holds up the others: %d workers instead of %d", stage.value, more, count)
                changes[stage.value] = more
        return replace(plan, **changes) if changes else None  # type: ignore[arg-type]

    def _look(self, now: float) -> None:
        self._looked_at, self._seconds = now, dict(self._busy.seconds)

    def _tell(self, plan: Plan) -> None:
        devices, precision = ", ".join(dict.fromkeys(plan.devices)), self._crew.model.precision
        tell(
            logging.INFO,
            Event.READY,
            f"ready: {plan.preprocess} preprocess, {len(plan.devices)} infer ({devices}, {precision}), "
            f"{plan.save} save, {plan.slots} slots",
        )
