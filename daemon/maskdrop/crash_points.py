"""Named places at which a test makes a process die at once: wherever a picture's state changes.

`CRASH_AT` in the environment arms them: entries ``point@/path/to/marker``, with ``:`` between.
A process that comes to an armed point makes the marker, which must not exist yet, and kills
itself with SIGKILL. So each entry fires once over all restarts, and an entry whose marker's
folder is missing waits until a test makes that folder. Where the variable is not set, a point
costs a look at a constant.
"""

import os
import signal
from enum import Enum

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


def _armed(entries: str) -> dict[CrashPoint, list[str]]:
    """Markers of each armed point.

    Raises:
        ValueError: an entry names no point.
    """
    armed: dict[CrashPoint, list[str]] = {}
    for entry in filter(None, entries.split(os.pathsep)):
        name, _, marker = entry.partition("@")
        armed.setdefault(CrashPoint(name), []).append(marker)
    return armed


_ARMED = _armed(os.environ.get(CRASH_AT, ""))


def crash_point(point: CrashPoint) -> None:
    """Die here, if this point is armed and has not fired yet."""
    if not _ARMED:
        return
    for marker in _ARMED.get(point, ()):
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        except OSError:  # fired already, or not to fire yet
            continue
        os.kill(os.getpid(), signal.SIGKILL)
