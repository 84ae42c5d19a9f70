"""How many processors this process may use: its affinity, and the quotas of its control groups."""

import math
import os
from pathlib import Path

from maskdrop.machine.control_groups import own_groups


def usable_cores() -> int:
    """Processors that this process may use. A quota of one and a half counts as two, the smallest as one."""
    cores = len(os.sched_getaffinity(0))
    quota = min(map(quota_in, own_groups("cpu")), default=math.inf)
    return cores if quota == math.inf else max(1, min(cores, math.floor(quota + 0.5)))


def quota_in(group: Path) -> float:
    """The quota of one control group, such as a unit's CPUQuota, in processors; infinite if it has none."""
    for read in (_quota, _quota_of_version_1):
        try:
            return read(group)
        except (OSError, ValueError):
            continue
    return math.inf


def _quota(group: Path) -> float:
    quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    return math.inf if quota == "max" else int(quota) / int(period)


def _quota_of_version_1(group: Path) -> float:
    quota, period = (int((group / f"cpu.cfs_{name}_us").read_text("ascii")) for name in ("quota", "period"))
    return quota / period if quota > 0 else math.inf  # -1: none
