"""How much heap a process that decodes or encodes keeps in its C library from picture to picture."""

import ctypes

KEPT_BYTES = 2**30
"""The most freed memory that a process keeps while pictures come: what saving one of some 100 million pixels
takes. Fetching memory from the kernel again, page by page, takes longer than decoding a picture of 512 x 512,
and a quarter of the time of one of 6,000 x 6,000."""

REST_S = 10.0
"""Seconds without a picture after which all kept memory is given back."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc; mallopt(3)


def keep_memory() -> None:
    """Make this process keep the memory it frees. A C library without mallopt(3) is left alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_memory_back() -> None:
    """Give all kept memory back (malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
