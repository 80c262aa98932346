"""The numbers of a library's vectors, and ranges of them.

    bit   62 ............. 40   39 ............. 8   7 ........ 0
          stream number (23)    block_idx (32)       ordinal (8)     int64, never negative

A stream is one range of ids, and so are consecutive blocks of it. Ranges are closed: (first_id, last_id).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from memory_store.errors import InvalidRecord
from memory_store.index import SCORE_DECIMALS
from memory_store.records import Array

IdRange: TypeAlias = tuple[int, int]

MAX_STREAMS, MAX_BLOCKS, MAX_VECTORS = 1 << 23, 1 << 32, 1 << 8
_ORDINAL_BITS, _STREAM_SHIFT = 8, 40


def vector_ids(stream_number: int, blocks: range, num_vectors: int) -> Array:
    """int64 [len(blocks) * num_vectors], ascending: the ids of consecutive blocks of `num_vectors` vectors each.

    Raises:
        InvalidRecord: a number does not fit its bits.
    """
    first, _ = block_range(stream_number, blocks)
    if not 1 <= num_vectors <= MAX_VECTORS:
        raise InvalidRecord(f"a block cannot have {num_vectors} vectors in a library: 1 to {MAX_VECTORS} fit an id")
    starts = first + (np.arange(len(blocks), dtype=np.int64) << _ORDINAL_BITS)
    ids: Array = (starts[:, None] + np.arange(num_vectors, dtype=np.int64)).ravel()
    return ids


def stream_range(stream_number: int) -> IdRange:
    """Every id of the stream. Raises: InvalidRecord."""
    return block_range(stream_number, range(MAX_BLOCKS))


def block_range(stream_number: int, blocks: range) -> IdRange:
    """Every id of consecutive blocks of the stream; first above last when there is no block.

    Raises:
        InvalidRecord: a number does not fit its bits, or the blocks are not consecutive.
    """
    if not 0 <= stream_number < MAX_STREAMS:
        raise InvalidRecord(f"stream number {stream_number} does not fit a library: it takes 0 to {MAX_STREAMS - 1}")
    if blocks.step != 1 or not 0 <= blocks.start <= MAX_BLOCKS or blocks.stop > MAX_BLOCKS:
        raise InvalidRecord(f"{blocks} are not consecutive blocks within 0..{MAX_BLOCKS - 1}")
    first = (stream_number << _STREAM_SHIFT) + (blocks.start << _ORDINAL_BITS)
    return first, first + (len(blocks) << _ORDINAL_BITS) - 1


def split_ids(ids: Array) -> tuple[Array, Array, Array]:
    """Stream numbers, block_idxs and ordinals of `ids`, each int64 [n]."""
    return ids >> _STREAM_SHIFT, (ids >> _ORDINAL_BITS) & (MAX_BLOCKS - 1), ids & (MAX_VECTORS - 1)


def best_of_blocks(ids: Array, scores: Array, limit: int) -> tuple[Array, Array]:
    """The best vector of each block, of the `limit` best blocks; `ids`, `scores` [n] are best first, and stay so."""
    _, first = np.unique(ids >> _ORDINAL_BITS, return_index=True)
    chosen = np.sort(first)[:limit]
    return ids[chosen], scores[chosen]


def ranked(ids: Array, scores: Array, limit: int) -> tuple[Array, Array]:
    """The `limit` best of `ids`, `scores` [n], best first, ties by lower id; scores rounded to SCORE_DECIMALS."""
    rounded = np.round(np.asarray(scores, np.float64), SCORE_DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0
    order = np.lexsort((ids, -rounded))[:limit]
    return ids[order], rounded[order].astype(np.float32)


def disjoint(ranges: Sequence[IdRange]) -> Array:
    """int64 [R, 2]: `ranges` in ascending order, those that overlap or touch made one, empty ones left out."""
    merged: list[list[int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        elif first <= last:
            merged.append([first, last])
    return np.array(merged, np.int64).reshape(-1, 2)


def within(ids: Array, ranges: Array) -> Array:
    """bool [n]: which of `ids` lie in one of the `disjoint` ranges [R, 2]."""
    if not len(ranges):
        return np.zeros(len(ids), bool)
    at = np.searchsorted(ranges[:, 0], ids, side="right") - 1
    inside: Array = (at >= 0) & (ids <= ranges[at, 1])
    return inside
