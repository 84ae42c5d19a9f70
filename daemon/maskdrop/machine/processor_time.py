"""How much a process has computed."""

import ctypes
import time

_libc = ctypes.CDLL(None)


def processor_seconds(pid: int) -> float | None:
    """Seconds that all threads of a process have had a core (clock_getcpuclockid(3)); None: it is gone."""
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        return None
    try:
        return time.clock_gettime(clock.value)
    except OSError:
        return None
