"""How much memory threads take from the system beyond what they use."""

import ctypes
import os

ARENAS = 2
M_ARENA_MAX = -8
"""The option's number in glibc's malloc.h."""


def limit_arenas() -> None:
    """Have all threads allocate from two of glibc's arenas, unless `MALLOC_ARENA_MAX` says otherwise.

    By default each thread gets an arena of its own, up to 8 a core, which keeps what the thread frees: a restore of 60,000 items
    took 297 MB so, and 241 MB with two. Threads that hold Python's lock one at a time gain nothing by more. Where the C library
    is another one, nothing changes.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
