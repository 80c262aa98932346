"""Exact nearest-block search over one stream's summaries, in FAISS; derived data, loaded from LMDB when first needed.

Per summarised layer one flat inner-product index over vectors whose heads are normalised one by one and laid side by
side: the inner product of two such vectors is H times the mean cosine over heads. Blocks stand in order, V rows each,
so that a range of blocks is a range of rows. Zero vectors stay zero and score 0 with everything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import faiss
import numpy as np

from memory_store.errors import InvalidRecord
from memory_store.records import Array, Hit

#: Scores are compared at this many decimals, so that equal vectors tie however their products were summed.
SCORE_DECIMALS = 6
_TIE = 10.0**-SCORE_DECIMALS

#: Vectors looked at beyond those that could be needed: when the last of them is worse than the last hit, none that
#: ties with that was cut off.
_SPARE = 8


def normalised(vectors: Array) -> Array:
    """`vectors` [..., D] scaled to length 1 along the last axis, float32; zero vectors stay zero."""
    exact = np.asarray(vectors, np.float64)
    norm = np.linalg.norm(exact, axis=-1, keepdims=True)
    units: Array = np.divide(exact, norm, out=np.zeros_like(exact), where=norm > 0).astype(np.float32)
    return units


def best_hits(block_idxs: Array, scores: Array, limit: int) -> list[Hit]:
    """The `limit` best blocks, best first, ties by lower block_idx; a block's score is its best vector's.

    Args:
        block_idxs, scores: [n] one entry per vector.
    """
    rounded = np.round(np.asarray(scores, np.float64), SCORE_DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0
    order = np.lexsort((block_idxs, -rounded))
    _, first = np.unique(block_idxs[order], return_index=True)
    chosen = order[np.sort(first)[:limit]]
    found = zip(block_idxs[chosen].tolist(), rounded[chosen].tolist(), strict=True)
    return [Hit(block_idx=block_idx, score=score) for block_idx, score in found]


def check_queries(queries: Array, expected: tuple[int, int, int] | None, limit: int, blocks: range) -> None:
    """Raise InvalidRecord unless `queries` is finite [S, H, D] as `expected`, `limit` >= 0 and `blocks` has step 1."""
    if queries.ndim != 3 or (expected is not None and queries.shape != expected):
        raise InvalidRecord(f"queries of shape {queries.shape} are not [S, H, D] = {expected}")
    if not np.isfinite(queries).all():
        raise InvalidRecord("the queries hold NaN or infinity: check the model's output")
    if limit < 0:
        raise InvalidRecord(f"a search limit cannot be {limit}")
    if blocks.step != 1:
        raise InvalidRecord(f"{blocks} are not consecutive blocks")


def within_rows(held: Array, blocks: Sequence[range]) -> list[range]:
    """Places in `held` [n], ascending, of the blocks of each range; ranges without any are left out."""
    ends = [(int(np.searchsorted(held, own.start)), int(np.searchsorted(held, own.stop))) for own in blocks]
    return [range(first, stop) for first, stop in ends if first < stop]


class StreamIndex:
    """Vectors of one stream's blocks. One lock guards add and search: FAISS crashes when they overlap."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        """Args: shape: [S, V, H, D] of every block's summary."""
        self._num_layers, self._num_vectors, self._num_heads, self._head_dim = shape
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._layers = [faiss.IndexFlatIP(self._num_heads * self._head_dim) for _ in range(self._num_layers)]
        self._held = np.empty(0, np.int64)  # the block of each V rows, ascending

    def extend_to(self, live: Sequence[range], load: Callable[[Sequence[int]], Array]) -> None:
        """Add the live blocks behind the last one held; start anew once half of those held are not live any more.

        Args:
            live: ascending ranges of block numbers.
            load: summaries [N, S, V, H, D] of some blocks.
        """
        with self._lock:
            last = int(self._held[-1]) if len(self._held) else -1
            if last >= 0 and sum(map(len, within_rows(self._held, live))) < len(self._held) // 2:
                self._reset()
                last = -1
            missing = [at for blocks in live for at in range(max(blocks.start, last + 1), blocks.stop)]
            for first in range(0, len(missing), 1024):
                some = missing[first : first + 1024]
                vectors = normalised(load(some)).swapaxes(0, 1)
                for index, rows in zip(self._layers, vectors, strict=True):
                    index.add(np.ascontiguousarray(rows).reshape(len(some) * self._num_vectors, -1))
                self._held = np.append(self._held, some)

    def search(self, queries: Array, *, limit: int, blocks: Sequence[range], per_head: bool) -> list[list[Hit]]:
        """As `Store.search`; `blocks`: ascending ranges."""
        units = normalised(queries)
        found: list[list[Hit]] = []
        with self._lock:
            rows = within_rows(self._held, blocks)
            for index, query in zip(self._layers, units, strict=True):
                if per_head:
                    found += [self._best(index, row, 1, limit, rows) for row in _one_head_each(query)]
                else:
                    found.append(self._best(index, query.reshape(1, -1), self._num_heads, limit, rows))
        return found

    def _best(self, index: faiss.IndexFlatIP, row: Array, heads: int, limit: int, ranges: Sequence[range]) -> list[Hit]:
        hits = [hit for places in ranges for hit in self._hits(index, row, heads, limit, places)]
        if len(ranges) > 1:
            hits.sort(key=lambda hit: (-hit.score, hit.block_idx))
        return hits[:limit]

    def _hits(self, index: faiss.IndexFlatIP, row: Array, heads: int, limit: int, places: range) -> list[Hit]:
        """Best blocks for one query row [1, H * D]; `heads`: how many cosines its inner products add up.

        Args:
            places: consecutive places among the blocks held.
        """
        num_rows = len(places) * self._num_vectors
        if not num_rows or not limit:
            return []
        wanted = min(limit * self._num_vectors + _SPARE, num_rows)
        selector = faiss.IDSelectorRange(places.start * self._num_vectors, places.stop * self._num_vectors)
        params = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        products, rows = (part[0] for part in index.search(row, wanted, params=params))
        hits = best_hits(self._held[rows // self._num_vectors], products / heads, limit)
        if wanted < num_rows and products[-1] / heads >= hits[-1].score - 2 * _TIE:
            # Vectors that tie with the last hit may have been cut off: take all that reach it and choose by block.
            _, reached, at = index.range_search(row, float((hits[-1].score - 2 * _TIE) * heads), params=params)
            hits = best_hits(self._held[at // self._num_vectors], reached / heads, limit)
        return hits


def _one_head_each(query: Array) -> Sequence[Array]:
    """Rows [1, H * D], one per head, that are `query` [H, D] at that head and zero elsewhere."""
    masked = np.zeros((len(query), *query.shape), np.float32)
    heads = np.arange(len(query))
    masked[heads, heads] = query
    return [row.reshape(1, -1) for row in masked]


class Indexes:
    """The loaded indexes by stream number; loading is lazy, and this is the place to bound how many stay."""

    def __init__(self) -> None:
        self._loaded: dict[int, StreamIndex] = {}
        self._lock = threading.Lock()

    def get(self, number: int, shape: tuple[int, int, int, int]) -> StreamIndex:
        """The stream's index, an empty one when it was not loaded yet."""
        with self._lock:
            if number not in self._loaded:
                self._loaded[number] = StreamIndex(shape)
            return self._loaded[number]

    def clear(self) -> None:
        with self._lock:
            self._loaded.clear()

    def drop(self, number: int) -> None:
        with self._lock:
            self._loaded.pop(number, None)
