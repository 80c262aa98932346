"""Search over all streams at once: one library index per shard, model and summarised layer, kept up with the store.

An index is opened from its snapshot when it is first asked, brought up to the store's newest blocks, and rid of what
was deleted; in any doubt it is made anew from the stored summaries.

    DIR/shard-0000/library/FINGERPRINT-LAYER-HxD/   a snapshot, written by housekeeping and on close
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_hexdigest

from memory_store import catalog, lookup
from memory_store.asked import Asked, Member, ids_within, members_of
from memory_store.blobs import Snapshot
from memory_store.catalog import StreamEntry, StreamHead
from memory_store.errors import CorruptRecord, InvalidRecord
from memory_store.library import (
    IdRange,
    LibraryIndex,
    LibrarySettings,
    LibrarySpec,
    best_of_blocks,
    block_range,
    split_ids,
    stream_range,
    vector_ids,
)
from memory_store.lmdb_errors import lmdb_errors
from memory_store.records import Array, LibraryHit, TimeRange
from memory_store.shard import Shard

#: Blocks read at a time to be added.
_CHUNK = 4096

#: So many times as many vectors are asked for where blocks of several vectors may crowd others out.
_CROWDING = 4


class LibrarySearch:
    """Of one open store; see `Store.library`. Thread-safe."""

    def __init__(
        self, shards: Sequence[Shard], places: Sequence[Path], settings: LibrarySettings | None = None
    ) -> None:
        self._libraries = [
            _Library(shard, place / "library", settings) for shard, place in zip(shards, places, strict=True)
        ]

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
        """The best blocks of all streams (or those named) that one model made, best first, ties by stream and number.

        Small libraries are searched exactly; beyond, approximately, with exact scores (`memory_store.library`). A score
        is as `Store.search` gives it.

        Args:
            queries: [S, H, D], finite: one per summarised layer.
            fingerprint: of the model.
            streams: those that are not there are left out.
            time_range: of each stream's own time, or one for each stream; streams without one are left out.
            per_head: rank by the cosine of each head alone.

        Returns:
            One list per summarised layer; `per_head`: one per (layer, head), row-major.

        Raises:
            InvalidRecord: queries of another shape, or not finite. CorruptRecord: a stored summary.
        """
        if queries.ndim != 3 or not np.isfinite(queries).all():
            raise InvalidRecord(f"queries of shape {queries.shape} are not finite [S, H, D]")
        asked = Asked(
            queries=queries,
            fingerprint=fingerprint,
            limit=limit,
            streams=None if streams is None else frozenset(streams),
            time_range=time_range,
            per_head=per_head,
        )
        shards = [library.search(asked) for library in self._libraries]
        return [best_of(of_shards, limit) for of_shards in zip(*shards, strict=True)]

    def save(self) -> None:
        """Write snapshots of the indexes that changed. Raises: StoreFull, StoreUnavailable: the last ones stay."""
        for library in self._libraries:
            library.save()


def best_of(rankings: Iterable[Sequence[LibraryHit]], limit: int) -> list[LibraryHit]:
    """The `limit` best of several rankings, best first, ties by stream and number."""
    hits = itertools.chain(*rankings)
    return sorted(hits, key=lambda hit: (-hit.score, hit.stream_id, hit.block_idx))[:limit]


class _Library:
    """The indexes of one shard."""

    def __init__(self, shard: Shard, folder: Path, settings: LibrarySettings | None) -> None:
        self._shard, self._folder, self._settings = shard, folder, settings
        self._indexes: dict[LibrarySpec, LibraryIndex] = {}
        self._live: dict[tuple[LibrarySpec, int], tuple[range, ...]] = {}
        self._saved: dict[LibrarySpec, tuple[int, int]] = {}
        self._updating = threading.Lock()

    def search(self, asked: Asked) -> list[list[LibraryHit]]:
        """As `LibrarySearch.search`, of this shard."""
        with self._updating:  # an older view than the index's would take what is newer out of it
            with self._shard.blobs.read() as snapshot:
                members = members_of(snapshot, self._shard.known, asked)
                ids = ids_within(snapshot, members, asked)
            indexes = [self._current(spec, members) if members and ids != [] else None for spec in asked.specs]
        reach = _Reach(
            ids=ids,
            names={entry.number: entry.record.stream_id for entry, _ in members},
            most_vectors=max((head.summary_shape[1] for _, head in members), default=1),
        )
        return [
            [] if index is None else _hits(index, row, asked, reach)
            for layer, index in enumerate(indexes)
            for row in asked.rows(layer)
        ]

    def _current(self, spec: LibrarySpec, members: Sequence[Member]) -> LibraryIndex:
        """The index, with everything the members had when they were read."""
        index = self._indexes.get(spec)
        if index is None:
            index = self._indexes[spec] = self._opened(spec, members)
        counts = {entry.number: head.stats.num_blocks for entry, head in members}
        for number in set(index.num_blocks) - set(counts):
            if self._live.get((spec, number)) != ():
                index.remove_range(*stream_range(number))
                self._live[spec, number] = ()
        for entry, head in members:
            self._catch_up(index, entry, head)
        return index

    def _opened(self, spec: LibrarySpec, members: Sequence[Member]) -> LibraryIndex:
        load = partial(self._load, spec)
        index = LibraryIndex.open(self._place(spec), spec, load, self._settings)
        counts = {entry.number: head.stats.num_blocks for entry, head in members}
        if index is None or any(marked > counts.get(number, marked) for number, marked in index.num_blocks.items()):
            return LibraryIndex(spec, load, self._settings)
        return index

    def _catch_up(self, index: LibraryIndex, entry: StreamEntry, head: StreamHead) -> None:
        spec, number = index.spec, entry.number
        marked, known = index.num_blocks.get(number, 0), self._live.get((spec, number)) == head.live
        if known and marked == head.stats.num_blocks:
            return
        if not known:
            for gone in _gaps(head.live, marked):
                index.remove_range(*block_range(number, gone))
        for own in catalog.within(head.live, range(marked, head.stats.num_blocks)):
            for start in range(own.start, own.stop, _CHUNK):
                blocks = range(start, min(start + _CHUNK, own.stop))
                with self._shard.blobs.read() as snapshot:
                    vectors = [_vectors(snapshot, entry, at, head, spec.layer) for at in blocks]
                index.add(vector_ids(number, blocks, head.summary_shape[1]), np.concatenate(vectors))
        self._live[spec, number] = head.live

    def _load(self, spec: LibrarySpec, ids: Array) -> Array:
        """Stored vectors of ids, normalised: float32 [n, H * D]; NaN of those deleted since."""
        found = np.full((len(ids), spec.num_heads, spec.head_dim), np.nan, np.float32)
        with self._shard.blobs.read() as snapshot:
            entries = {entry.number: entry for entry in catalog.all_entries(snapshot)}
            for row, (number, block_idx, ordinal) in enumerate(zip(*(p.tolist() for p in split_ids(ids)), strict=True)):
                entry = entries.get(number)
                if entry is not None and snapshot.get("summaries", entry.block_key(block_idx)) is not None:
                    found[row] = lookup.summary_vectors(snapshot, entry, block_idx, None)[spec.layer, ordinal]
        norms = np.linalg.norm(found, axis=-1, keepdims=True)
        np.divide(found, norms, out=found, where=norms > 0)
        return found.reshape(len(ids), -1)

    def save(self) -> None:
        with self._updating:
            for spec, index in self._indexes.items():
                state = (index.num_vectors, sum(index.num_blocks.values()))
                if self._shard.lock is not None and self._saved.get(spec) != state:
                    with lmdb_errors(self._folder):
                        self._place(spec).mkdir(parents=True, exist_ok=True)
                        index.save(self._place(spec))
                    self._saved[spec] = state

    def _place(self, spec: LibrarySpec) -> Path:
        name = xxh3_64_hexdigest(spec.fingerprint.encode())
        return self._folder / f"{name}-{spec.layer}-{spec.num_heads}x{spec.head_dim}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """What of an index is searched: ranges of ids (None: all), streams by number, and the most vectors of a block."""

    ids: list[IdRange] | None
    names: Mapping[int, str]
    most_vectors: int


def _hits(index: LibraryIndex, row: Array, asked: Asked, reach: _Reach) -> list[LibraryHit]:
    found, scores = _best_blocks(index, row, asked.limit, reach)
    numbers, blocks, _ = (part.tolist() for part in split_ids(found))
    scale = len(row) if asked.per_head else 1  # an index divides by all heads
    return [
        LibraryHit(stream_id=reach.names[number], block_idx=block_idx, score=scale * score)
        for number, block_idx, score in zip(numbers, blocks, scores.tolist(), strict=True)
        if number in reach.names
    ]


def _best_blocks(index: LibraryIndex, query: Array, limit: int, reach: _Reach) -> tuple[Array, Array]:
    """Ids and scores of the best vector of each of `limit` blocks: more vectors are asked for until so many are met."""
    wanted = limit * min(reach.most_vectors, _CROWDING)
    while True:
        found, scores = index.search(query, wanted, ids=reach.ids)
        best = best_of_blocks(found, scores, limit)
        if len(best[0]) == limit or len(found) < wanted:
            return best
        wanted *= _CROWDING


def _gaps(live: Sequence[range], count: int) -> list[range]:
    """The blocks of 0..count-1 that are not live."""
    edges = [0, *(edge for own in live for edge in (own.start, own.stop)), max(count, live[-1].stop if live else 0)]
    gaps = (range(start, min(stop, count)) for start, stop in zip(edges[::2], edges[1::2], strict=True))
    return [gap for gap in gaps if gap]


def _vectors(snapshot: Snapshot, entry: StreamEntry, block_idx: int, head: StreamHead, layer: int) -> Array:
    """[V, H, D]; zeros where the summary fails or was deleted meanwhile: it stays in its place and is not found."""
    try:
        vectors: Array = lookup.summary_vectors(snapshot, entry, block_idx, head.summary_shape)[layer]
        return vectors
    except CorruptRecord:
        return np.zeros(head.summary_shape[1:], np.float32)
