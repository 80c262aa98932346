"""What a search over all streams asks for, and which streams and vectors of a shard that reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from memory_store import catalog
from memory_store.blobs import Snapshot
from memory_store.catalog import StreamEntry, StreamHead
from memory_store.errors import InvalidRecord
from memory_store.known import Known
from memory_store.library import IdRange, LibrarySpec, block_range, stream_range
from memory_store.records import Array, TimeRange


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A search on its way; fields as the arguments of `LibrarySearch.search`."""

    queries: Array
    fingerprint: str
    limit: int
    streams: frozenset[str] | None
    time_range: TimeRange | Mapping[str, TimeRange] | None
    per_head: bool

    @property
    def specs(self) -> list[LibrarySpec]:
        """Of the index of each layer."""
        layers, heads, dim = self.queries.shape
        return [
            LibrarySpec(fingerprint=self.fingerprint, layer=layer, num_heads=heads, head_dim=dim)
            for layer in range(layers)
        ]

    def reaches(self, stream_id: str) -> bool:
        """Whether any of the stream is searched."""
        has_range = not isinstance(self.time_range, Mapping) or stream_id in self.time_range
        return has_range and (self.streams is None or stream_id in self.streams)

    def range_of(self, stream_id: str) -> TimeRange | None:
        """What of a stream that is searched; None: all."""
        return self.time_range[stream_id] if isinstance(self.time_range, Mapping) else self.time_range

    def rows(self, layer: int) -> list[Array]:
        """The layer's query [H, D], or one per head that is the query at that head and zero elsewhere."""
        query = self.queries[layer]
        if not self.per_head:
            return [query]
        return [np.where(np.arange(len(query))[:, None] == head, query, 0) for head in range(len(query))]


Member: TypeAlias = tuple[StreamEntry, StreamHead]


def members_of(snapshot: Snapshot, known: Known, asked: Asked) -> list[Member]:
    """Streams of the model that have blocks."""
    layers, *vector = asked.queries.shape
    members = []
    for entry in known.entries(snapshot):
        head = known.head(snapshot, entry) if entry.record.fingerprint == asked.fingerprint else None
        if head is None:
            continue
        if [head.summary_shape[0], *head.summary_shape[2:]] != [layers, *vector]:
            raise InvalidRecord(
                f"queries {asked.queries.shape} are not like the summaries of stream {entry.record.stream_id!r}, "
                f"{head.summary_shape}"
            )
        members.append((entry, head))
    return members


def ids_within(snapshot: Snapshot, members: Sequence[Member], asked: Asked) -> list[IdRange] | None:
    """Ranges of ids of what is searched; None: of all."""
    if asked.streams is None and asked.time_range is None:
        return None
    return [
        span
        for entry, head in members
        if asked.reaches(entry.record.stream_id)
        for span in _spans(snapshot, entry, head, asked.range_of(entry.record.stream_id))
    ]


def _spans(snapshot: Snapshot, entry: StreamEntry, head: StreamHead, time_range: TimeRange | None) -> list[IdRange]:
    """Ranges of ids of the stream's blocks in a range of time."""
    if time_range is None:
        return [stream_range(entry.number)]
    start_s, end_s = head.stats.start_s, head.stats.end_s
    if start_s is None or end_s is None or end_s < time_range.start_s or time_range.end_s < start_s:
        return []
    if time_range.start_s <= start_s and end_s <= time_range.end_s:
        return [stream_range(entry.number)]
    blocks = catalog.overlapping(snapshot, entry, head.live, time_range)
    return [block_range(entry.number, blocks)] if blocks else []
