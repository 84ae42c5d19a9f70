"""While a folder can't take files: work pauses, and one picture at a time tries again."""

from dataclasses import dataclass

from maskdrop.supervisor.pipeline import Step

TRY_AGAIN_S = 1.0


@dataclass(frozen=True)
class _Trouble:
    reason: str
    next_try: float


class Stall:
    """Which last steps can't be done, and when they are tried again. Saving goes on while quarantining is
    impossible, and the other way round."""

    def __init__(self) -> None:
        self._troubles: dict[Step, _Trouble] = {}

    @property
    def reason(self) -> str | None:
        """Why no more work is taken; None if it is."""
        reasons = dict.fromkeys(trouble.reason for trouble in self._troubles.values())
        return "; ".join(reasons) or None

    @property
    def next_try(self) -> float | None:
        return min((trouble.next_try for trouble in self._troubles.values()), default=None)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that can't be done."""
        return tuple(self._troubles)

    def begin(self, step: Step, reason: str, now: float) -> bool:
        """The step failed. True if that is news."""
        before = self._troubles.get(step)
        self._troubles[step] = _Trouble(reason, now + TRY_AGAIN_S)
        return before is None or before.reason != reason

    def take_try(self, step: Step, now: float) -> bool:
        """Whether one picture may try the step now; if so, the next may after `TRY_AGAIN_S`."""
        trouble = self._troubles[step]
        if now < trouble.next_try:
            return False
        self._troubles[step] = _Trouble(trouble.reason, now + TRY_AGAIN_S)
        return True

    def end(self, step: Step) -> bool:
        """The step was done. True if that is news."""
        return self._troubles.pop(step, None) is not None
