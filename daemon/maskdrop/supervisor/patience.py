"""How long a silent worker is waited for. Pure: states and times are passed in."""

from dataclasses import dataclass

from maskdrop.supervisor.child import ChildState

OVERSLEPT_S = 1.0
"""A loop that wakes so much later than it wanted was stopped itself, and its workers perhaps
with it: a suspended machine, a frozen control group. Their silence then says nothing."""


@dataclass(frozen=True)
class Patience:
    """The law of who is late. A worker that holds nothing is never waited for."""

    stage_timeout_s: float
    start_timeout_s: float

    def deadline(self, state: ChildState, busy: bool, heard_at: float) -> float | None:
        """When a worker is late; None where nothing is expected of it.

        Args:
            busy: whether it holds a picture, be it at work or queued.
            heard_at: its start, last report, or first ticket after it held none.
        """
        if state is ChildState.STARTING:
            return heard_at + self.start_timeout_s
        if state is ChildState.READY and busy:
            return heard_at + self.stage_timeout_s
        return None

    def verdict(self, state: ChildState) -> str:
        """The cause to give for a worker that was late."""
        if state is ChildState.STARTING:
            return f"not ready after {self.start_timeout_s:g} s (workers.start_timeout_s)"
        return f"nothing heard for {self.stage_timeout_s:g} s (workers.stage_timeout_s)"


class LostTime:
    """Owner of how long the loop's last round took."""

    def __init__(self) -> None:
        self._worked = 0.0

    def of(self, worked: float, wanted: float, waited: float) -> float:
        """Seconds for which nobody heard what workers said; 0 where that was soon enough.

        Rounds that take long one after the other are a loop that is slow by itself, and that hears its
        workers in each of them: of each only what it took longer than the one before counts, or nobody would
        ever be late.

        Args:
            worked: what the loop took for all it had to do.
            wanted, waited: how long it was to wait then, and did.
        """
        lost = max(0.0, worked - self._worked) if worked > OVERSLEPT_S else 0.0
        self._worked = worked
        return lost + (waited - wanted if waited > wanted + OVERSLEPT_S else 0.0)
