"""What a process that decodes or encodes keeps of the C library's heap between two pictures."""

import ctypes

KEPT_BYTES = 2**30
"""Freed memory that a process keeps at most while pictures come: what saving one of some 100 million pixels
takes. Fetching it from the kernel anew, page by page, takes longer than decoding a picture of 512 x 512, and
a quarter of the time of one of 6,000 x 6,000."""

REST_S = 10.0
"""Seconds without a picture after which all of it is given back."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc; mallopt(3)


def keep_memory() -> None:
    """From now on this process keeps what it frees. A C library that can't be told does as it does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_memory_back() -> None:
    """Let go of all that is kept (malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
