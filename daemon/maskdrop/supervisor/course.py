"""How far the daemon is on its way to its end."""

from dataclasses import dataclass

from maskdrop.exit_codes import EX_CONFIG, EX_CUT_SHORT, EX_OK

_REASONS = {EX_OK: "drained", EX_CUT_SHORT: "drain cut short", EX_CONFIG: "can't run as configured"}


@dataclass
class Course:
    """Working, then draining, then stopping. Nothing leads back.

    Attributes:
        drain_deadline: when draining is cut short; None while nobody has asked for the end.
        stopping: whether the workers were told to stop, or killed.
        hurried: whether the workers that were left at the deadline, or at a second signal, were killed.
        exit_code: what the daemon will end with.
    """

    drain_deadline: float | None = None
    stopping: bool = False
    hurried: bool = False
    exit_code: int = EX_OK

    @property
    def draining(self) -> bool:
        """Whether nothing more is taken from the inbox."""
        return self.drain_deadline is not None

    @property
    def ending(self) -> bool:
        return self.draining or self.stopping

    @property
    def is_patient(self) -> bool:
        """Whether the deadline, or a second signal, would still hurry anybody."""
        return self.exit_code in (EX_OK, EX_CUT_SHORT) and not self.hurried

    def note_unfinished(self) -> None:
        """Something in flight stays in the inbox, which couldn't be finished."""
        self.exit_code = EX_CUT_SHORT

    def drain(self, deadline: float) -> None:
        self.drain_deadline = deadline

    def stop(self, exit_code: int | None = None) -> None:
        """Have the workers stop, with this exit code if it is not the one that stood."""
        self.stopping = True
        if exit_code is not None:
            self.exit_code = exit_code

    def hurry(self, in_flight: int) -> None:
        """Have the end come at once. It is a drain all the same where nothing was in flight any more."""
        self.hurried = True
        self.stop(EX_CUT_SHORT if in_flight else None)

    @property
    def reason(self) -> str:
        """Why the daemon has ended."""
        return _REASONS[self.exit_code]
