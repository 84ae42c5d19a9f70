"""How much processor time a process has used."""

import ctypes
import time

_libc = ctypes.CDLL(None)


def processor_seconds(pid: int) -> float | None:
    """Processor time of all threads of a process, in seconds (clock_getcpuclockid(3)); None if it is gone."""
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        return None
    try:
        return time.clock_gettime(clock.value)
    except OSError:
        return None
