"""Freed memory is kept, unless the user's own settings say otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

#: Minor page faults of allocating and freeing 20 pieces of 2 MiB, ten times over, after a first round.
FAULTS = """
import resource, sys
from memory_store.allocator import keep_freed_memory
done = keep_freed_memory()
def round_():
    pieces = [bytearray(2 << 20) for _ in range(20)]
    for piece in pieces:
        piece[::4096] = bytes(512)
round_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    round_()
print(int(done), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**variables: str) -> tuple[int, int]:
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True, timeout=60)
    kept, count = done.stdout.split()
    return int(kept), int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has what is set")
def test_memory_is_taken_from_the_system_once() -> None:
    kept, count = faults()
    left_alone, many = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert (kept, left_alone) == (1, 0)
    assert count < many / 10
