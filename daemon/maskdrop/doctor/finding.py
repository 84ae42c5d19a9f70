"""What the doctor says about one thing."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a thing is. A warning keeps nothing from working today."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, how it is, and what mends it; no remedy if it is in order."""

    name: str
    status: Status
    told: str
    remedy: str = ""


def ok(name: str, told: str) -> Finding:
    """A thing that is in order."""
    return Finding(name, Status.OK, told)


def warning(name: str, told: str, remedy: str) -> Finding:
    """A thing that may become a problem."""
    return Finding(name, Status.WARNING, told, remedy)


def fail(name: str, told: str, remedy: str) -> Finding:
    """A thing that keeps the daemon from working."""
    return Finding(name, Status.FAIL, told, remedy)


def size(count: float) -> str:
    """A number of bytes, written for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit in ("bytes", "KiB") else f"{count:,.1f} {unit}"
