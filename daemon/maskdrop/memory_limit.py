"""How much memory this process may use at most: the machine's, and the limits of its control groups."""

import os
from pathlib import Path

_MEMBERSHIP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")

_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Files of both versions of control groups (cgroups(7))."""


def usable_bytes() -> int:
    """Memory that there is, or that control groups leave of it; not what is free of it now."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        membership = _MEMBERSHIP.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # a kernel without control groups
        return machine
    limits = map(limit_in, memory_groups(membership, _CGROUPS))
    return min([machine, *(limit for limit in limits if limit is not None)])


def memory_groups(membership: str, mounted: Path) -> list[Path]:
    """A process's control groups of memory, of both versions, and all that hold them, as seen from here.

    Args:
        membership: what ``/proc/self/cgroup`` holds.
        mounted: where the groups are; a container sees its own as the uppermost.
    """
    groups = [mounted, mounted / "memory"]
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tops = [mounted, mounted / "unified"]
        elif "memory" in controllers.split(","):
            tops = [mounted / "memory"]
        else:
            continue
        if ".." in Path(path).parts:  # a group that can't be seen from here
            continue
        for top in tops:
            group = top / path.lstrip("/")
            groups += [group, *(up for up in group.parents if up.is_relative_to(top))]
    return list(dict.fromkeys(groups))


def limit_in(group: Path) -> int | None:
    """The limit of one control group in bytes; None: it has none."""
    for name in _LIMITS:
        try:
            return int((group / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None
