"""Named places at which a test makes a process die at once: wherever a picture's state changes.

`CRASH_AT` in the environment arms them: entries ``point@/path/to/marker``, with ``:`` between.
A process that comes to an armed point makes the marker, which must not exist yet, and kills
itself with SIGKILL. So each entry fires once over all restarts, and an entry whose marker's
folder is missing waits until a test makes that folder. The variable is read at a process's first
point; where it is not set, a point costs a look into an empty dictionary.
"""

import os
import signal
from enum import Enum
from functools import cache

CRASH_AT = "MASKDROP_CRASH_AT"


class CrashPoint(Enum):
    """What has just happened, in a picture's order; docs/guarantees.md tells what is on disk then."""

    LOCK_TAKEN = "lock-taken"
    TICKET_ACCEPTED = "ticket-accepted"
    ORIGINAL_READ = "original-read"
    SLOT_FILLED = "slot-filled"
    LABELS_WRITTEN = "labels-written"
    RESULT_WRITTEN = "result-written"
    RESULT_RENAMED = "result-renamed"
    RESULTS_PUBLISHED = "results-published"
    ORIGINAL_CLAIMED = "original-claimed"
    ORIGINAL_MOVED = "original-moved"
    FOLDER_SYNCED = "folder-synced"
    REASON_SYNCED = "reason-synced"
    REASON_WRITTEN = "reason-written"
    QUARANTINED = "quarantined"
    REPORT_DUE = "report-due"
    REPORT_TAKEN = "report-taken"


@cache
def _armed() -> dict[CrashPoint, list[str]]:
    """Markers of each armed point.

    Raises:
        ValueError: an entry names no point.
    """
    armed: dict[CrashPoint, list[str]] = {}
    for entry in filter(None, os.environ.get(CRASH_AT, "").split(os.pathsep)):
        name, _, marker = entry.partition("@")
        armed.setdefault(CrashPoint(name), []).append(marker)
    return armed


def crash_point(point: CrashPoint) -> None:
    """Die here, if this point is armed and has not fired yet."""
    for marker in _armed().get(point, ()):
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        except OSError:  # fired already, or not to fire yet
            continue
        os.kill(os.getpid(), signal.SIGKILL)
