"""Search over a whole library: segments with exact reranking against flat search, memory, opening, rebuilding.

Vectors lie in clusters, as keys do, and a query is a stored vector with noise. What reranking and rebuilding read are
summaries as the store keeps them, out of a mapped file and verified one by one; finding them in LMDB is not counted.
"""

from __future__ import annotations

import mmap
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from cacheflow_ray.bench.measure import medians
from cacheflow_ray.bench.results import Part
from memory_store.index import StreamIndex, normalised
from memory_store.library import CODECS, LibraryIndex, LibrarySettings, LibrarySpec, split_ids, vector_ids
from memory_store.records import Array
from memory_store.values import SummaryHeader, decode_summary_vectors, encode_summary

#: What is added at once is sealed at once: small pieces would be merged again and again.
_CHUNK = 1 << 18
_BLOCK_KEY = struct.Struct(">II")
#: Vectors that tie in exact search may come out this far apart.
_SAME_SCORE = 2e-6
_NOISE, _QUERY_NOISE = 0.5, 0.1
_HEADER = SummaryHeader(start_s=0.0, end_s=0.0, num_tokens=1, num_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrarySize:
    """How much to measure; the defaults are a 0.5B model's kv-heads and as many blocks as 1,000 hours leave.

    Args:
        num_vectors: one per block, streams of equal length.
        num_clusters: centres the vectors lie around.
        num_queries, limit: how often it is asked, for how many vectors.
    """

    num_vectors: int = 1_000_000
    num_heads: int = 2
    head_dim: int = 64
    num_streams: int = 100
    num_clusters: int = 2_000
    num_queries: int = 100
    limit: int = 64

    @property
    def spec(self) -> LibrarySpec:
        return LibrarySpec(fingerprint="bench", layer=0, num_heads=self.num_heads, head_dim=self.head_dim)

    @property
    def num_blocks(self) -> int:
        """Of each stream."""
        return self.num_vectors // self.num_streams


class StoredSummaries:
    """The summaries of all blocks, as values of the store one after the other in a file; close it when done."""

    def __init__(self, path: Path, size: LibrarySize) -> None:
        """Writes the file."""
        self._size = size
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((size.num_clusters, size.num_heads, size.head_dim), np.float32)
        with path.open("wb") as file:
            for stream in range(size.num_streams):
                near = centres[rng.integers(size.num_clusters, size=size.num_blocks)]
                vectors = normalised(near + _NOISE * rng.standard_normal(near.shape, np.float32))
                for block_idx, vector in enumerate(vectors):
                    file.write(encode_summary(_key(stream, block_idx), _HEADER, vector[None, None]))
        self._value_bytes = path.stat().st_size // (size.num_streams * size.num_blocks)
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def load(self, ids: Array) -> Array:
        """The vectors of `ids` [n], verified and normalised: float32 [n, H * D]."""
        found = np.empty((len(ids), self._size.num_heads, self._size.head_dim), np.float32)
        streams, blocks, _ = (part.tolist() for part in split_ids(ids))
        with memoryview(self._map) as values:
            for row, (stream, block_idx) in enumerate(zip(streams, blocks, strict=True)):
                start = (stream * self._size.num_blocks + block_idx) * self._value_bytes
                value = values[start : start + self._value_bytes]
                found[row] = decode_summary_vectors(_key(stream, block_idx), value)[0, 0]
        return normalised(found).reshape(len(ids), -1)

    def all_ids(self) -> list[Array]:
        """Ids in the order they are added, about _CHUNK at a time; the last fill half the tail, its usual share."""
        streams = [vector_ids(stream, range(self._size.num_blocks), 1) for stream in range(self._size.num_streams)]
        ids = np.concatenate(streams)
        sealed = max(len(ids) - LibrarySettings().tail_limit // 2, 1)
        return [*np.array_split(ids[:sealed], -(-sealed // _CHUNK)), ids[sealed:]]

    def queries(self) -> Array:
        """float32 [num_queries, H, D]: stored vectors with noise."""
        rng = np.random.default_rng(1)
        chosen = rng.integers(self._size.num_vectors, size=self._size.num_queries)
        ids = np.concatenate(self.all_ids())[chosen % (self._size.num_streams * self._size.num_blocks)]
        near = self.load(ids).reshape(len(ids), self._size.num_heads, self._size.head_dim)
        noisy: Array = near + _QUERY_NOISE * rng.standard_normal(near.shape, np.float32)
        return noisy

    def close(self) -> None:
        self._map.close()


def measure_library(folder: Path, note: Callable[[str], None], size: LibrarySize | None = None) -> Part:
    """`ann_over_flat_speed`, `ann_recall_at_<limit>`, `ann_open_s` and `ann_rebuild_s`; memory is in the details.

    Args:
        folder: with room for about 1 kB per vector; what is written there is deleted.
        note: shows one line of progress.
    """
    size = size or LibrarySize()
    note(f"writing {size.num_vectors} summaries")
    summaries = StoredSummaries(folder / "summaries", size)
    try:
        return _measured(folder / "index", note, size, summaries)
    finally:
        summaries.close()
        (folder / "summaries").unlink()
        shutil.rmtree(folder / "index", ignore_errors=True)


def _measured(folder: Path, note: Callable[[str], None], size: LibrarySize, summaries: StoredSummaries) -> Part:
    settings = LibrarySettings()
    built: dict[str, tuple[LibraryIndex, float]] = {}
    for codec in CODECS:
        note(f"indexing {size.num_vectors} vectors with {codec}")
        built[codec] = _build(summaries, size, replace(settings, codec=codec))
    index, rebuild_s = built[settings.codec]
    note("saving, opening and searching")
    save_s = _seconds(lambda: index.save(folder))
    opened: list[LibraryIndex | None] = []
    open_s = _seconds(lambda: opened.append(LibraryIndex.open(folder, size.spec, summaries.load, settings)))
    assert opened[0] is not None, "a snapshot just saved opens"
    queries = summaries.queries()
    found, flat_s = _searched(summaries, size, {codec: made for codec, (made, _) in built.items()}, queries)
    return Part(
        ratios={
            "ann_over_flat_speed": flat_s / found[settings.codec].p50_s,
            f"ann_recall_at_{size.limit}": found[settings.codec].recall,
            "ann_open_s": open_s,
            "ann_rebuild_s": rebuild_s,
        },
        details={
            "vectors": size.num_vectors,
            "dim": size.spec.dim,
            "flat_p50_ms": 1e3 * flat_s,
            "p50_ms": {codec: 1e3 * one.p50_s for codec, one in found.items()},
            "recall": {codec: one.recall for codec, one in found.items()},
            "rebuild_s": {codec: seconds for codec, (_, seconds) in built.items()},
            "save_s": save_s,
            "bytes_per_million": {codec: 1e6 * made.num_bytes / size.num_vectors for codec, (made, _) in built.items()}
            | {"flat": 1e6 * (4 * size.spec.dim + 8)},
        },
    )


def _seconds(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def _build(summaries: StoredSummaries, size: LibrarySize, settings: LibrarySettings) -> tuple[LibraryIndex, float]:
    """An index of all vectors, and the seconds it took from their stored summaries."""
    index = LibraryIndex(size.spec, summaries.load, settings)

    def run() -> None:
        for ids in summaries.all_ids():
            index.add(ids, summaries.load(ids))

    return index, _seconds(run)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Median seconds of a search, and the share of the exact best it found."""

    p50_s: float
    recall: float


def _searched(
    summaries: StoredSummaries, size: LibrarySize, indexes: Mapping[str, LibraryIndex], queries: Array
) -> tuple[dict[str, _Found], float]:
    """Each index against flat search over the same vectors, query by query in turn; and flat search's seconds."""
    ids = np.concatenate(summaries.all_ids())
    flat = StreamIndex(_shape_of(size))
    everything = [range(len(ids))]
    flat.extend_to(everything, lambda rows: summaries.load(ids[list(rows)]).reshape(-1, *_shape_of(size)))
    times: dict[str, list[float]] = {name: [] for name in ("flat", *indexes)}
    reached = dict.fromkeys(indexes, 0)
    for query in queries:
        start = perf_counter()
        hits = flat.search(query[None], limit=size.limit, blocks=everything, per_head=False)[0]
        times["flat"].append(perf_counter() - start)
        for name, index in indexes.items():
            start = perf_counter()
            _, scores = index.search(query, size.limit)
            times[name].append(perf_counter() - start)
            reached[name] += int(np.count_nonzero(scores >= hits[-1].score - _SAME_SCORE))
    p50_s = medians(times)
    asked = len(queries) * size.limit
    return {name: _Found(p50_s=p50_s[name], recall=reached[name] / asked) for name in indexes}, p50_s["flat"]


def _shape_of(size: LibrarySize) -> tuple[int, int, int, int]:
    return (1, 1, size.num_heads, size.head_dim)


def _key(stream: int, block_idx: int) -> bytes:
    return _BLOCK_KEY.pack(stream, block_idx)
