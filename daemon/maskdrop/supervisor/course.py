"""How far the daemon has come towards its end."""

from dataclasses import dataclass

from maskdrop.exit_codes import EX_CONFIG, EX_CUT_SHORT, EX_OK

_REASONS = {EX_OK: "drained", EX_CUT_SHORT: "drain cut short", EX_CONFIG: "can't run as configured"}


@dataclass
class Course:
    """Working, then draining, then stopping. Nothing leads back.

    Attributes:
        drain_deadline: when draining is cut short; None until somebody asks for the end.
        stopping: whether the workers were told to stop, or killed.
        killed: whether the workers were killed: at the deadline, at a second signal, or because they can't
            work as configured.
        exit_code: what the daemon will end with.
    """

    drain_deadline: float | None = None
    stopping: bool = False
    killed: bool = False
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
        """Whether the deadline or a second signal would still change anything."""
        return not self.killed

    def note_unfinished(self) -> None:
        """A picture in flight couldn't be finished and stays in the inbox."""
        self.exit_code = EX_CUT_SHORT

    def drain(self, deadline: float) -> None:
        self.drain_deadline = deadline

    def stop(self) -> None:
        """The workers were told to stop: nothing is in flight any more."""
        self.stopping = True

    def hurry(self, in_flight: int) -> None:
        """End at once. If nothing was in flight any more, the exit code is still that of a drain."""
        self.stopping = self.killed = True
        if in_flight:
            self.exit_code = EX_CUT_SHORT

    def fail(self) -> None:
        """The daemon can't run as configured."""
        self.stopping = self.killed = True
        self.exit_code = EX_CONFIG

    @property
    def reason(self) -> str:
        """Why the daemon has ended."""
        return _REASONS[self.exit_code]
