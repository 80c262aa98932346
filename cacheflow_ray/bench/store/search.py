"""Search within one stream, beside a bare FAISS scan over the same vectors.

bytes that must move    read every vector of the stream once
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import torch

from cacheflow_ray.bench.measure import interleaved, medians
from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.store.sizes import StoreSizes
from cacheflow_ray.bench.store.synthetic import commit_summaries, fresh_store
from memory_store import Store
from memory_store.records import Array, JsonValue

#: Blocks searched for.
_LIMIT = 64


def measure_search(folder: Path, sizes: StoreSizes, note: Callable[[str], None]) -> Part:
    """`search_p50_ms` with one vector per block, and `search_over_scan`: the worst of shapes over a bare FAISS scan."""
    ratios: dict[str, float] = {}
    details: dict[str, JsonValue] = {}
    for heads, head_dim, vectors in ((2, 64, 1), (2, 64, 8), (4, 128, 1), (4, 128, 4)):
        note(f"searching {sizes.searched} blocks, {vectors} vector(s) of {heads} x {head_dim} each")
        rng = np.random.default_rng(0)
        summaries = rng.standard_normal((sizes.searched, 2, vectors, heads, head_dim), np.float32)
        queries = rng.standard_normal((2, heads, head_dim), np.float32)
        with fresh_store(folder / "search") as store:
            commit_summaries(store, summaries)
            runs = {
                "search": _searching(store, queries, range(sizes.searched)),
                "scan": _scanning(_bare_indexes(summaries), queries, vectors),
            }
            seconds = medians(interleaved(runs, sizes.search_repeats, torch.device("cpu")))
        name = f"{heads}x{head_dim}x{vectors}"
        details[name] = {f"{run}_ms": 1e3 * value for run, value in seconds.items()}
        over = seconds["search"] / seconds["scan"]
        if (heads, vectors) == (2, 1):
            ratios["search_p50_ms"] = 1e3 * seconds["search"]
        else:
            ratios["search_over_scan"] = max(over, ratios.get("search_over_scan", 0.0))
    return Part(ratios=ratios, details=details)


def _bare_indexes(summaries: Array) -> list[faiss.IndexFlatIP]:
    indexes = []
    for layer in range(summaries.shape[1]):
        vectors = np.ascontiguousarray(summaries[:, layer]).reshape(-1, summaries.shape[3] * summaries.shape[4])
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        indexes.append(index)
    return indexes


def _searching(store: Store, queries: Array, blocks: range) -> Callable[[], object]:
    return lambda: store.search("bench", queries, limit=_LIMIT, blocks=blocks)


def _scanning(indexes: Sequence[faiss.IndexFlatIP], queries: Array, vectors: int) -> Callable[[], object]:
    """As many of the nearest vectors of each layer as the blocks searched for have."""
    rows = queries.reshape(len(queries), 1, -1)
    return lambda: [index.search(row, _LIMIT * vectors) for index, row in zip(indexes, rows, strict=True)]
