"""How much of the store one run measures."""

from __future__ import annotations

from dataclasses import dataclass, field

from cacheflow_ray.bench.store.library import LibrarySize


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSizes:
    """How much to measure.

    Args:
        group: blocks per transaction; groups: of them, timed.
        fetched: blocks read at a time, of a few more that are stored; fetch_repeats: how often.
        searched: blocks of the stream that is searched; search_repeats: how often.
        live, churn: blocks kept, and how many times as many go through.
    """

    group: int = 8
    groups: int = 16
    fetched: int = 64
    fetch_repeats: int = 9
    searched: int = 10_000
    search_repeats: int = 200
    live: int = 100
    churn: int = 10
    library: LibrarySize = field(default_factory=LibrarySize)
