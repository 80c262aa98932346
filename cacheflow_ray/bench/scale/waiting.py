"""Time a thread was ready to run while others had the cores: it says how busy a machine is, not what the work costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

_TOLD = Path("/proc/thread-self/schedstat")


@dataclass(slots=True)
class Timed:
    """`clock_s` of a `with` block, and what of it this thread `waited_s` for a core; 0 where the system tells not."""

    clock_s: float = 0.0
    waited_s: float = 0.0

    @property
    def own_s(self) -> float:
        """What it took beside that."""
        return self.clock_s - self.waited_s

    @property
    def own_share(self) -> float:
        return self.own_s / self.clock_s if self.clock_s else 1.0


@contextmanager
def timed() -> Iterator[Timed]:
    """Time a block of this thread's work."""
    time, clock, waited = Timed(), perf_counter(), _waited_s()
    try:
        yield time
    finally:
        time.clock_s = perf_counter() - clock
        time.waited_s = min(time.clock_s, _waited_s() - waited)


def _waited_s() -> float:
    """Since this thread began."""
    try:
        return int(_TOLD.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
