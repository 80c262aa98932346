"""Nearest-vector search over all streams of a shard: derived data, which stored summaries can always rebuild.

    add --> tail (exact) --seal--> segments (compressed)
    search = every segment's candidates, reranked by the vectors themselves, and the tail's best

One vector is a block's vector of one summarised layer, its heads normalised one by one and laid side by side, as in
`memory_store.index`; a score is the mean over heads of the cosine. Who searches takes the state there is and needs no
lock, because a state never changes: writers, one at a time, put a new one in its place.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from memory_store.errors import InvalidRecord, StoreError
from memory_store.index import normalised
from memory_store.library.ids import IdRange, disjoint, ranked, split_ids
from memory_store.library.segment import CODECS, Load, build
from memory_store.library.snapshot import Snapshots
from memory_store.library.state import LibrarySettings, LibrarySpec, Parts, State, due
from memory_store.library.tail import Tail
from memory_store.records import Array

#: Candidates beyond the share a codec asks for: a limit of a few vectors needs more than a few.
_EXTRA_CANDIDATES = 16

#: While one thread seals, others may let the tail grow to so many times its limit before they wait for it.
_PATIENCE = 4


class LibraryIndex:
    """Thread-safe. `load` is called by searches and while segments are built, with none of the index's locks held."""

    def __init__(self, spec: LibrarySpec, load: Load, settings: LibrarySettings | None = None) -> None:
        """Args: load: the stored vectors of some ids; a row of NaN for one that is stored no more."""
        self.spec = spec
        self.settings = settings or LibrarySettings()
        self._load = load
        self._state = State(segments=(), tail=Tail.empty(spec.dim))
        self._keys = itertools.count()
        self._writing = threading.Lock()
        self._building = threading.Lock()
        self._saving = threading.Lock()
        self._snapshots = Snapshots(spec, self.settings.codec)
        self._unreadable: frozenset[int] = frozenset()

    @classmethod
    def open(
        cls, folder: str | Path, spec: LibrarySpec, load: Load, settings: LibrarySettings | None = None
    ) -> LibraryIndex | None:
        """The index saved in the folder, to which what lies above `num_blocks` is yet to be added.

        None when there is none, or any doubt about it (a changed byte, another spec, codec or format): make an empty
        index and add everything. Do so too when `num_blocks` counts blocks the store lacks: a power cut may have undone
        their commits and not the snapshot.
        """
        opened = cls(spec, load, settings)
        state = opened._snapshots.read(Path(folder).absolute())
        if state is None:
            return None
        opened._state = state
        opened._keys = itertools.count(len(state.segments))
        return opened

    @property
    def num_blocks(self) -> Mapping[int, int]:
        """By stream number: blocks 0..n-1 of the stream were added (and perhaps removed since)."""
        return self._state.num_blocks

    @property
    def num_vectors(self) -> int:
        """Vectors that can be found."""
        state = self._state
        sealed = sum(len(part.ids) - part.num_dead for part in state.segments)
        return sealed + int(np.count_nonzero(state.tail.alive))

    @property
    def num_bytes(self) -> int:
        """Memory of the vectors and their ids."""
        state = self._state
        return sum(part.num_bytes for part in state.segments) + state.tail.num_bytes

    def add(self, ids: Array, vectors: Array) -> None:
        """Add the vectors of whole blocks, above those added before; seals the tail when it is due.

        What is added at once is sealed at once, so a rebuild is faster in pieces of some 250,000.

        Args:
            ids: int64 [n]; of one stream ascending, streams in any order.
            vectors: [n, H, D] or [n, H * D], finite, of any length; copied.

        Raises:
            InvalidRecord: an id twice, out of order, or of a block added before; vectors unlike the spec. Nothing is
            added then.
        """
        ids = np.asarray(ids, np.int64)
        rows = self._normalised(vectors, len(ids))
        _check_ascending(ids)
        with self._writing:
            marks = _marks_after(self._state.num_blocks, ids)
            self._state = replace(self._state, tail=self._state.tail.appended(ids, rows), num_blocks=marks)
        self._tidy()

    def remove_range(self, first_id: int, last_id: int) -> None:
        """Remove every vector from `first_id` to `last_id`, both included; searches that began before may find them."""
        with self._writing:
            self._state = self._state.without(disjoint([(first_id, last_id)]))
        self._tidy()

    def search(self, query: Array, limit: int, *, ids: Sequence[IdRange] | None = None) -> tuple[Array, Array]:
        """The `limit` nearest vectors, best first, ties by lower id; those in segments as far as the probes reach.

        Args:
            query: [H * D] or [H, D], finite.
            ids: closed ranges to search within; None for all.

        Returns:
            ids int64 [n] and scores float32 [n], exact, rounded to `index.SCORE_DECIMALS`.

        Raises:
            InvalidRecord; whatever `load` raises.
        """
        if limit < 0:
            raise InvalidRecord(f"a search limit cannot be {limit}")
        row = self._normalised(np.asarray(query)[None], 1)[0]
        ranges = None if ids is None else disjoint(ids)
        state = self._state
        found, products = state.tail.search(row, limit, ranges)
        candidates = self._candidates(state, row, limit, ranges)
        if len(candidates):
            exact = self._loaded(candidates) @ row
            stored = np.isfinite(exact)
            found = np.concatenate([found, candidates[stored]])
            products = np.concatenate([products, exact[stored]])
        return ranked(found, products / self.spec.num_heads, limit)

    def save(self, folder: str | Path) -> None:
        """Put a snapshot into the folder, which nothing else may use. Raises: OSError: the last one stays."""
        with self._saving:
            self._snapshots.write(Path(folder).absolute(), self._state)

    def _candidates(self, state: State, row: Array, limit: int, ranges: Array | None) -> Array:
        """Ids in segments that may be among the nearest, int64 [n]; all segments share one bound on how many."""
        if not limit or not state.segments:
            return np.empty(0, np.int64)
        wanted = math.ceil(limit * CODECS[self.settings.codec].over_fetch) + _EXTRA_CANDIDATES
        parts = [part.search(row, wanted, ranges, self.settings.num_probes) for part in state.segments]
        ids, products = (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(ids) > wanted:
            ids = ids[np.argpartition(products, -wanted)[-wanted:]]
        return np.sort(ids)

    def _tidy(self) -> None:
        """Seal, compact and merge whatever is due, unless another thread is at it."""
        must_wait = self._state.tail.count > _PATIENCE * self.settings.tail_limit
        if not self._building.acquire(blocking=must_wait):
            return
        try:
            while (parts := due(self._state, self.settings, self._unreadable)) is not None:
                self._rebuild(parts)
        finally:
            self._building.release()

    def _rebuild(self, parts: Parts) -> None:
        """Make one segment of `parts` beside the searches and put it in their place."""
        state = self._state
        ids = parts.alive_ids(state)
        if parts.tail_rows:
            load = _of_tail(state.tail)
        else:
            load = partial(parts.decoded, state) if CODECS[self.settings.codec].can_recode else self._whole
        try:
            segment = build(next(self._keys), ids, load, self.settings.codec) if len(ids) else None
        except StoreError:
            # These segments stay as they are: a search that comes upon what cannot be read tells of it.
            self._unreadable |= parts.keys
            return
        with self._writing:
            self._state = self._state.replaced(parts, segment)

    def _loaded(self, ids: Array) -> Array:
        """Stored vectors, float32 [n, H * D]."""
        vectors = np.asarray(self._load(ids), np.float32)
        if vectors.shape != (len(ids), self.spec.dim):
            raise InvalidRecord(f"{len(ids)} vectors were loaded as {vectors.shape}, not [n, {self.spec.dim}]")
        return vectors

    def _whole(self, ids: Array) -> Array:
        """Stored vectors, zero for those stored no more."""
        return np.nan_to_num(self._loaded(ids))

    def _normalised(self, vectors: Array, count: int) -> Array:
        """float32 [count, H * D], heads of length 1. Raises: InvalidRecord."""
        vectors = np.asarray(vectors)
        heads = (count, self.spec.num_heads, self.spec.head_dim)
        if vectors.shape not in (heads, (count, self.spec.dim)):
            raise InvalidRecord(f"vectors of shape {vectors.shape} are not [n, H, D] = {heads}")
        if not np.isfinite(vectors).all():
            raise InvalidRecord("the vectors hold NaN or infinity: check the model's output")
        return normalised(vectors.reshape(heads)).reshape(count, self.spec.dim)


def _of_tail(tail: Tail) -> Load:
    """Vectors of the tail by id."""
    order = np.argsort(tail.ids)
    ids = tail.ids[order]
    return lambda wanted: tail.vectors[order[np.searchsorted(ids, wanted)]]


def _check_ascending(ids: Array) -> None:
    """Raises InvalidRecord unless `ids` is [n], none negative, those of one stream ascending and none there twice."""
    if ids.ndim != 1 or (ids < 0).any():
        raise InvalidRecord("ids are one row of numbers from 0 up: make them with vector_ids")
    streams = split_ids(ids)[0]
    order = np.argsort(streams, kind="stable")
    wrong = np.flatnonzero(np.diff(ids[order]) <= 0)
    if len(wrong):
        stream, block, _ = (int(part) for part in split_ids(ids[order[wrong[0] + 1]]))
        raise InvalidRecord(
            f"block {block} of stream number {stream} is given twice or out of order: add by ascending id",
            block_idx=block,
        )


def _marks_after(marks: Mapping[int, int], ids: Array) -> Mapping[int, int]:
    """`marks` once the blocks of `ids` are added. Raises: InvalidRecord: one was added before."""
    streams, blocks, _ = split_ids(ids)
    added: dict[int, int] = {}
    for stream in np.unique(streams).tolist():
        mine = blocks[streams == stream]
        if mine[0] < marks.get(stream, 0):
            raise InvalidRecord(
                f"block {mine[0]} of stream number {stream} was added before: {marks[stream]} blocks are indexed",
                block_idx=int(mine[0]),
            )
        added[stream] = int(mine[-1]) + 1
    return {**marks, **added}
