"""Whether the kernel tells of processes and memory: PyTorch and maskdrop read both in /proc."""

from pathlib import Path

_PROC = Path("/proc/meminfo")

MISSING = "/proc is not mounted, and neither PyTorch nor maskdrop can do without it"
REMEDY = "mount it: mount -t proc proc /proc"


def has_proc() -> bool:
    return _PROC.is_file()
