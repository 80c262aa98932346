"""Where the indexers of one run say what they got through, and hear whether to go on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cacheflow_ray.archive.meter import Counts
from cacheflow_ray.archive.records import FileState


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of all indexers.

    Args:
        counts: what was got through; num_bytes: of the files that are as far as they go.
        ended: how many of them are in which state.
        busy_s: from the beginning of the first to the end of the last so far.
    """

    counts: Counts = field(default_factory=Counts)
    ended: Mapping[FileState, int] = field(default_factory=dict)
    num_bytes: int = 0
    busy_s: float = 0.0


class Board:
    """An actor; calls are quick."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._ended: Counter[FileState] = Counter()
        self._bytes, self._busy_s, self._stopped = 0, 0.0, False
        self._began: float | None = None

    def began(self) -> None:
        """A file is begun."""
        if self._began is None:
            self._began = time.perf_counter()

    def report(self, counts: Counts) -> bool:
        """Add to what was got through; returns whether the run is to stop."""
        self._counts += counts
        return self._stopped

    def ended(self, state: FileState, num_bytes: int) -> None:
        """A file is as far as it goes."""
        self._ended[state] += 1
        self._bytes += num_bytes
        if self._began is not None:
            self._busy_s = time.perf_counter() - self._began

    def stop(self) -> None:
        self._stopped = True

    def totals(self) -> Totals:
        return Totals(counts=self._counts, ended=dict(self._ended), num_bytes=self._bytes, busy_s=self._busy_s)
