"""Recall and latency of library search over libraries of several sizes, beside a scan of every stream."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine.library import search_library
from cacheflow_ray.engine.memory import VideoMemory
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.retrieval import query_vectors, search_suffix
from cacheflow_ray.engine.scope import EVERYWHERE
from cacheflow_ray.errors import UsageError
from cacheflow_ray.eval.library.corpus import Corpus, Sought, ingest_library
from cacheflow_ray.models import VideoModel
from memory_store import LibraryHit, Store
from memory_store.everywhere import best_of
from memory_store.records import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryPlan:
    """What is measured.

    Args:
        videos: sizes of libraries. frames: of each video.
        top_k: moments searched for.
        settings: of the streams. ask: how questions are asked.
    """

    videos: tuple[int, ...] = (100, 300)
    frames: int = 64
    top_k: int = 10
    settings: StreamSettings
    ask: AskOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds: median and 95th percentile."""

    p50: float
    p95: float

    @classmethod
    def of(cls, ms: Sequence[float]) -> Latency:
        return cls(p50=float(np.percentile(ms, 50)), p95=float(np.percentile(ms, 95)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One library.

    Args:
        n: questions asked; left_out: those about what no full block shows.
        recall_1, recall_k: share of questions whose moment is the first found, among the K found.
        stream_1: share whose first moment is of the right stream, which then answers.
        right: share answered rightly when the library is asked.
        same: share for which the index and the scan rank the same blocks alike.
        search: a search, from text to moments. index: the part of it the store takes. scan: what a search of every
            stream takes instead.
        first_s: the first search, for which the index is made.
    """

    videos: int
    frames: int
    blocks: int
    top_k: int
    n: int
    left_out: int
    recall_1: float
    recall_k: float
    stream_1: float
    right: float
    same: float
    search: Latency
    index: Latency
    scan: Latency
    first_s: float


def run_library(model: VideoModel, plan: LibraryPlan, *, note: Callable[[str], None]) -> Iterator[Row]:
    """A row per library, as it is measured. Raises UsageError: there is nothing to ask about."""
    for videos in plan.videos:
        with tempfile.TemporaryDirectory(prefix="cacheflow-library-") as place, Store.open(Path(place)) as store:
            corpus = ingest_library(Backend(model=model, store=store), videos, plan.frames, plan.settings, note=note)
            if not corpus.sought:
                raise UsageError(f"{videos} videos of {plan.frames} frames show nothing to ask about: take more")
            yield _row(model, store, corpus, plan, videos)


def _row(model: VideoModel, store: Store, corpus: Corpus, plan: LibraryPlan, videos: int) -> Row:
    memory = VideoMemory(store, model)
    options = plan.ask.model_copy(update={"top_k": plan.top_k})
    started = perf_counter()
    search_library(Backend(model=model, store=store), EVERYWHERE, corpus.sought[0].question.text, options)
    first_s = perf_counter() - started
    found = [_found(memory, own, plan, options) for own in corpus.sought]
    sides = [_both_ways(model, store, own, options) for own in corpus.sought]
    ranks = np.array([rank for rank, _, _ in found])
    return Row(
        videos=videos,
        frames=plan.frames,
        blocks=corpus.num_blocks,
        top_k=plan.top_k,
        n=len(corpus.sought),
        left_out=corpus.left_out,
        recall_1=float((ranks < 1).mean()),
        recall_k=float((ranks < plan.top_k).mean()),
        stream_1=float(np.mean([first for _, first, _ in found])),
        right=float(np.mean([_is_right(memory, own, plan.ask) for own in corpus.sought])),
        same=float(np.mean([same for same, _, _ in sides])),
        search=Latency.of([ms for _, _, ms in found]),
        index=Latency.of([ms for _, ms, _ in sides]),
        scan=Latency.of([ms for _, _, ms in sides]),
        first_s=first_s,
    )


def _found(memory: VideoMemory, own: Sought, plan: LibraryPlan, options: AskOptions) -> tuple[float, bool, float]:
    """Rank of the moment sought (infinite: not found), whether the first is of its stream, and milliseconds."""
    started = perf_counter()
    moments = memory.search_library(own.question.text, top_k=plan.top_k).moments
    ms = (perf_counter() - started) * 1e3
    ranks = [
        rank
        for rank, moment in enumerate(moments)
        if moment.stream == own.stream and own.blocks & set(moment.evidence.block_idxs)
    ]
    return (ranks[0] if ranks else float("inf")), moments[0].stream == own.stream, ms


def _is_right(memory: VideoMemory, own: Sought, ask: AskOptions) -> bool:
    return memory.ask_library(own.question.text, options=ask).result.text.strip() == own.question.answer


def _both_ways(model: VideoModel, store: Store, own: Sought, options: AskOptions) -> tuple[bool, float, float]:
    """Whether index and scan rank alike, and milliseconds of each."""
    queries = model.queries(search_suffix(model, own.question.text))
    vectors = query_vectors(model, queries, str(store.get_stream(own.stream).settings["summary"]))
    started = perf_counter()
    indexed = store.library.search(vectors, fingerprint=model.fingerprint, limit=options.num_candidates)
    between = perf_counter()
    scanned = _scan(store, vectors, options.num_candidates)
    ended = perf_counter()
    places = [[[(hit.stream_id, hit.block_idx) for hit in row] for row in rows] for rows in (indexed, scanned)]
    return places[0] == places[1], (between - started) * 1e3, (ended - between) * 1e3


def _scan(store: Store, vectors: Array, limit: int) -> list[list[LibraryHit]]:
    """The best blocks per layer by the exact index of every stream."""
    found: list[list[LibraryHit]] = [[] for _ in vectors]
    for record in store.list_streams():
        count = store.stats(record.stream_id).num_blocks
        rankings = store.search(record.stream_id, vectors, limit=limit, blocks=range(count))
        for hits, ranking in zip(found, rankings, strict=True):
            hits += [
                LibraryHit(stream_id=record.stream_id, block_idx=hit.block_idx, score=hit.score) for hit in ranking
            ]
    return [best_of([hits], limit) for hits in found]
