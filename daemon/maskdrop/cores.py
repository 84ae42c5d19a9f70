"""How many processors this process may use: its affinity, and the quotas of its control groups."""

import math
import os
from pathlib import Path

_MEMBERSHIP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Processors that this process may use; a quota of one and a half counts as two, and any as one."""
    cores = len(os.sched_getaffinity(0))
    try:
        membership = _MEMBERSHIP.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # a kernel without control groups
        return cores
    quota = quota_of(membership, _CGROUPS)
    return cores if quota == math.inf else max(1, min(cores, math.floor(quota + 0.5)))


def quota_of(membership: str, mounted: Path) -> float:
    """The least quota of a process's control group and of all that hold it, such as a unit's CPUQuota.

    Args:
        membership: what ``/proc/self/cgroup`` holds; its line ``0::PATH`` is of version 2,
            see cgroups(7).
        mounted: where the groups are; a container sees its own as the uppermost.

    Returns:
        In processors; infinite where nobody has set one.
    """
    lines = membership.splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    # A path that leads upwards is of a group that can't be seen from here.
    group = mounted if ".." in Path(path).parts else mounted / path
    return min(map(_quota_in, (group, *(up for up in group.parents if up.is_relative_to(mounted)))))


def _quota_in(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf
