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


def overslept(wanted: float, slept: float) -> bool:
    """Whether a wait of so many seconds, and what was done before it, took so long that its sleeper was
    stopped meanwhile, or did something long: in either case nobody heard what workers said."""
    return slept > wanted + OVERSLEPT_S
