"""How long to wait for a silent worker. Pure: states and times are passed in."""

from dataclasses import dataclass

from maskdrop.supervisor.child import ChildState

OVERSLEPT_S = 1.0
"""A loop that wakes more than so many seconds late was itself stopped, and perhaps its workers with
it: a suspended machine, a frozen control group. Their silence then says nothing."""


@dataclass(frozen=True)
class Patience:
    """Decides which worker is late. Nothing is expected of one that is ready and holds nothing."""

    stage_timeout_s: float
    start_timeout_s: float

    def deadline(self, state: ChildState, busy: bool, heard_at: float) -> float | None:
        """When a worker will be late; None if nothing is expected of it.

        Args:
            busy: whether it holds a picture, in work or queued, or was told to end.
            heard_at: see `Child.heard_at`.
        """
        if state is ChildState.STARTING:
            return heard_at + self.start_timeout_s
        if state is ChildState.READY and busy:
            return heard_at + self.stage_timeout_s
        return None

    def verdict(self, state: ChildState) -> str:
        """Why a late worker was ended, in words."""
        if state is ChildState.STARTING:
            return f"not ready after {self.start_timeout_s:g} s (workers.start_timeout_s)"
        return f"nothing heard for {self.stage_timeout_s:g} s (workers.stage_timeout_s)"


class LostTime:
    """Works out for how long the loop couldn't hear its workers; remembers how long its last round took."""

    def __init__(self) -> None:
        self._worked = 0.0

    def of(self, worked: float, wanted: float, waited: float) -> float:
        """Seconds for which nobody heard what workers said; 0 if that was short enough.

        A loop whose rounds are all long is slow by itself, and hears its workers in each round. So of a
        round only the time counts by which it was longer than the one before; otherwise no worker would
        ever be late.

        Args:
            worked: seconds that the loop spent on all it had to do.
            wanted, waited: seconds for which it then meant to wait, and did wait.
        """
        lost = max(0.0, worked - self._worked) if worked > OVERSLEPT_S else 0.0
        self._worked = worked
        return lost + (waited - wanted if waited > wanted + OVERSLEPT_S else 0.0)
