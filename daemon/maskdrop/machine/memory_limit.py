"""The most memory that this process may use: the machine's, within the limits of its control groups."""

import os
from pathlib import Path

from maskdrop.machine.control_groups import own_groups

_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Files that hold the limit, in both versions of control groups (cgroups(7))."""


def usable_bytes() -> int:
    """The machine's memory, or what control groups allow of it; not how much is free now."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = map(limit_in, own_groups("memory"))
    return min([machine, *(limit for limit in limits if limit is not None)])


def limit_in(group: Path) -> int | None:
    """The limit of one control group in bytes; None if it has none."""
    for name in _LIMITS:
        try:
            return int((group / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None
