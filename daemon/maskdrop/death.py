"""How a worker ended, and what it died of."""

import signal
from dataclasses import dataclass
from enum import Enum

from maskdrop.exit_codes import EX_OUT_OF_MEMORY


class Ending(Enum):
    """Ways for a worker to end; the value is the error that a reason names."""

    DIED = "WorkerDied"
    HUNG = "StageTimeout"
    UNFIT = "Unfit"


MACHINES = frozenset({Ending.DIED.value, Ending.HUNG.value})
"""Errors that may be the machine's fault and not the picture's."""


@dataclass(frozen=True)
class Death:
    """How a worker ended, and the cause in words."""

    ending: Ending
    cause: str

    def __str__(self) -> str:
        told = {Ending.DIED: "died of", Ending.HUNG: "was hung and killed:", Ending.UNFIT: "can't work:"}
        return f"{told[self.ending]} {self.cause}"


def cause_of_death(code: int | None) -> str:
    """An exit code in words: ``signal 9 (SIGKILL)`` or ``exit code 1``."""
    if code is not None and code < 0:
        try:
            return f"signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"signal {-code}"
    if code == EX_OUT_OF_MEMORY:
        return f"want of memory (exit code {code})"
    return f"exit code {code}"
