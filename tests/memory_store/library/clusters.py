"""A library of vectors in clusters, exact search over it, and what an index finds of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memory_store.index import normalised
from memory_store.library import IdRange, LibraryIndex, LibrarySettings, LibrarySpec, vector_ids
from memory_store.records import Array

H, D, V = 2, 16, 2
SPEC = LibrarySpec(fingerprint="model", layer=3, num_heads=H, head_dim=D)
SMALL = LibrarySettings(tail_limit=1_000, num_probes=24)


class Library:
    """Vectors of blocks that lie in clusters, as keys do, and exact search over them."""

    def __init__(self, num_streams: int, num_blocks: int, *, seed: int = 0, num_clusters: int = 100) -> None:
        self.rng = np.random.default_rng(seed)
        self.blocks = range(num_blocks)
        self.num_streams = num_streams
        self.ids = np.concatenate([vector_ids(stream, self.blocks, V) for stream in range(num_streams)])
        centres = self.rng.standard_normal((num_clusters, H, D))
        noise = self.rng.standard_normal((len(self.ids), H, D))
        near = centres[self.rng.integers(num_clusters, size=len(self.ids))] + 0.5 * noise
        self.vectors = normalised(near).reshape(len(self.ids), H * D)
        self.gone: set[int] = set()

    def load(self, ids: Array) -> Array:
        found = self.vectors[np.searchsorted(self.ids, ids)].copy()
        found[[int(vector_id) in self.gone for vector_id in ids]] = np.nan
        return found

    def fill(self, index: LibraryIndex, *, num_blocks: int = 40, first_block: int = 0) -> LibraryIndex:
        """Add all streams side by side, some blocks at a time, as ingests that run together do."""
        for start in range(first_block, len(self.blocks), num_blocks):
            wanted = range(start, min(start + num_blocks, len(self.blocks)))
            for stream in range(self.num_streams):
                ids = vector_ids(stream, wanted, V)
                index.add(ids, self.load(ids))
        return index

    def index(self, settings: LibrarySettings = SMALL) -> LibraryIndex:
        return self.fill(LibraryIndex(SPEC, self.load, settings))

    def queries(self, count: int) -> Array:
        near = self.vectors[self.rng.integers(len(self.ids), size=count)].reshape(count, H, D)
        return near + 0.1 * self.rng.standard_normal((count, H, D))

    def exact(
        self, query: Array, limit: int, ranges: Sequence[IdRange] | None = None, removed: Sequence[IdRange] = ()
    ) -> tuple[Array, Array]:
        """The oracle: every vector scored in float64."""
        within = np.full(len(self.ids), ranges is None)
        for first, last in ranges or ():
            within |= (self.ids >= first) & (self.ids <= last)
        for first, last in removed:
            within &= (self.ids < first) | (self.ids > last)
        unit = query / np.linalg.norm(query, axis=-1, keepdims=True)
        scores = np.round(self.vectors[within].astype(np.float64) @ unit.ravel() / H, 6)
        order = np.lexsort((self.ids[within], -scores))[:limit]
        return self.ids[within][order], scores[order]


def recall(
    index: LibraryIndex, library: Library, *, limit: int = 64, count: int = 50, ids: Sequence[IdRange] | None = None
) -> float:
    """Share of the exact best that is found; by score, because vectors may tie."""
    found = 0
    for query in library.queries(count):
        _, expected = library.exact(query, limit, ids)
        _, scores = index.search(query, limit, ids=ids)
        found += int(np.count_nonzero(scores >= expected[-1] - 2e-6)) if len(expected) else 0
    return found / (count * limit)
