"""The newest vectors of a library, searched exactly until there are enough of them to be sealed.

    rows     0 ........ count ........ capacity
             published  written next    never changed once a view counts them

A `Tail` is a view of the first `count` rows. Appending writes above every view and returns a larger one; removing
copies the row of flags. So a search that holds a view needs no lock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memory_store.index import SCORE_DECIMALS
from memory_store.library.ids import within
from memory_store.records import Array

#: Inner products nearer than this times H * D may tie once they are scores and rounded.
_TIE = 2 * 10.0**-SCORE_DECIMALS

_GROUP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """ids: int64 [capacity]; vectors: float32 [capacity, H * D]; alive: bool [capacity]. Rows in order of arrival."""

    ids_buffer: Array
    vectors_buffer: Array
    alive_buffer: Array
    count: int = 0

    @classmethod
    def empty(cls, dim: int) -> Tail:
        return cls(
            ids_buffer=np.empty(0, np.int64),
            vectors_buffer=np.empty((0, dim), np.float32),
            alive_buffer=np.empty(0, bool),
        )

    @property
    def alive(self) -> Array:
        """bool [count]: the rows that were not removed."""
        return self.alive_buffer[: self.count]

    @property
    def ids(self) -> Array:
        """int64 [count], removed rows among them."""
        return self.ids_buffer[: self.count]

    @property
    def vectors(self) -> Array:
        """float32 [count, H * D], removed rows among them."""
        return self.vectors_buffer[: self.count]

    @property
    def num_bytes(self) -> int:
        """Of memory, room for later rows included."""
        return self.ids_buffer.nbytes + self.vectors_buffer.nbytes + self.alive_buffer.nbytes

    def appended(self, ids: Array, vectors: Array) -> Tail:
        """With `ids` [n] and `vectors` [n, H * D] after the others. Only the newest view may be appended to."""
        stop = self.count + len(ids)
        grown = self if stop <= len(self.ids_buffer) else self._with_capacity(max(stop, 2 * self.count))
        rows = slice(self.count, stop)
        grown.ids_buffer[rows], grown.vectors_buffer[rows], grown.alive_buffer[rows] = ids, vectors, True
        return Tail(
            ids_buffer=grown.ids_buffer,
            vectors_buffer=grown.vectors_buffer,
            alive_buffer=grown.alive_buffer,
            count=stop,
        )

    def without(self, ranges: Array) -> Tail:
        """With the rows within the disjoint `ranges` [R, 2] removed."""
        alive = self.alive_buffer.copy()
        alive[: self.count] &= ~within(self.ids, ranges)
        return Tail(
            ids_buffer=self.ids_buffer, vectors_buffer=self.vectors_buffer, alive_buffer=alive, count=self.count
        )

    def after(self, count: int) -> Tail:
        """The rows from `count` on that are not removed, copied."""
        keep = np.flatnonzero(self.alive[count:]) + count
        return Tail.empty(self.vectors.shape[1]).appended(self.ids[keep], self.vectors[keep])

    def search(self, query: Array, limit: int, ranges: Array | None) -> tuple[Array, Array]:
        """Ids and inner products with `query` [H * D] of the `limit` best, unordered, and of all that may tie them."""
        inside = self.alive if ranges is None else self.alive & within(self.ids, ranges)
        num_inside = int(np.count_nonzero(inside))
        if 4 * num_inside > self.count:  # reading every row in order costs less than picking a quarter of them
            rows, products = np.arange(self.count), self.vectors @ query
            products[~inside] = -np.inf
        else:
            rows = np.flatnonzero(inside)
            products = self.vectors[rows] @ query
        if limit < num_inside:
            reached = np.flatnonzero(products >= _nth_best(products, limit) - _TIE * len(query))
            rows, products = rows[reached], products[reached]
        found = products > -np.inf
        return self.ids[rows[found]], products[found]

    def _with_capacity(self, capacity: int) -> Tail:
        grown = Tail(
            ids_buffer=np.empty(capacity, np.int64),
            vectors_buffer=np.empty((capacity, self.vectors_buffer.shape[1]), np.float32),
            alive_buffer=np.empty(capacity, bool),
            count=self.count,
        )
        grown.ids[:], grown.vectors[:], grown.alive[:] = self.ids, self.vectors, self.alive
        return grown


def _nth_best(products: Array, limit: int) -> float:
    """The `limit`-th greatest of `products` [n], n > limit; the greatest of all for a limit of 0.

    Partitioning them all takes longer than computing them. The limit-th greatest of the maxima of groups has `limit`
    above or at it, one in each group, so only what reaches it can be among the best.
    """
    limit = max(limit, 1)
    maxima = products[: len(products) // _GROUP * _GROUP].reshape(-1, _GROUP).max(axis=1)
    if len(maxima) > limit:
        products = products[products >= np.partition(maxima, -limit)[-limit]]
    return float(np.partition(products, -limit)[-limit])
