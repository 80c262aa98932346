"""Search over all streams of a `testing.MemoryStore`: each is searched, and the best of all are chosen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from memory_store.errors import InvalidRecord
from memory_store.everywhere import best_of
from memory_store.records import Array, LibraryHit, TimeRange

if TYPE_CHECKING:
    from memory_store.testing import MemoryStore


class MemoryLibrary:
    """Double of `everywhere.LibrarySearch`, and the reference it is held against."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def search(
        self,
        queries: Array,
        *,
        fingerprint: str,
        limit: int,
        streams: Collection[str] | None = None,
        time_range: TimeRange | Mapping[str, TimeRange] | None = None,
        per_head: bool = False,
    ) -> list[list[LibraryHit]]:
        if queries.ndim != 3 or not np.isfinite(queries).all():
            raise InvalidRecord(f"queries of shape {queries.shape} are not finite [S, H, D]")
        found: list[list[LibraryHit]] = [[] for _ in range(len(queries) * (queries.shape[1] if per_head else 1))]
        for name in self._names(fingerprint, streams):
            within = time_range.get(name) if isinstance(time_range, Mapping) else time_range or TimeRange()
            blocks = self._store.blocks_in(name, within) if within else range(0)
            rankings = self._store.search(name, queries, limit=limit, blocks=blocks, per_head=per_head)
            for own, hits in zip(found, rankings, strict=True):
                own += [LibraryHit(stream_id=name, block_idx=hit.block_idx, score=hit.score) for hit in hits]
        return [best_of([hits], limit) for hits in found]

    def _names(self, fingerprint: str, streams: Collection[str] | None) -> list[str]:
        records = [record for record in self._store.list_streams() if record.fingerprint == fingerprint]
        return [record.stream_id for record in records if streams is None or record.stream_id in streams]
