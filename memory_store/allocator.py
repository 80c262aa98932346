"""Keeps freed memory for the next commit.

LMDB allocates every block it writes, and frees it once it is written. glibc gives so large a piece back to the system,
and taking it anew costs a page fault every 4 KiB: several times what writing it costs.
"""

from __future__ import annotations

import ctypes
import functools
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Freed memory at the heap's end that a process keeps, and the size from which pieces are mapped on their own.
_KEPT_BYTES, _MAPPED_FROM = 256 << 20, 32 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Once per process, with glibc; whether it is so. Who sets glibc's own variables for it is left alone."""
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM))
