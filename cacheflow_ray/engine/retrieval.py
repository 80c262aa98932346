"""Which blocks a question needs: query vectors, one ranking per layer from the store, a consensus (CacheFlow §3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cacheflow_ray.config import AskOptions
from cacheflow_ray.core.consensus import merge, stop_early, vote_ranking
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine.opened import Backend, OpenedStream
from cacheflow_ray.engine.protocol import BlockStore
from cacheflow_ray.engine.reports import Evidence
from cacheflow_ray.errors import InvalidFeatures, NothingToAnswer, QuestionTooLong
from cacheflow_ray.models import Suffix, Turn, VideoModel
from memory_store.records import Array, Hit, TimeRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Blocks a question may attend to: those it may retrieve, then the window. Both ranges of block numbers."""

    candidates: range
    window: range
    with_tail: bool


def scope(store: BlockStore, opened: OpenedStream, time_range: TimeRange | None, window_blocks: int) -> Scope:
    """Split the blocks of a time range into candidates and local window.

    The window's blocks are never candidates: they are attended anyway. A range that ends before the stream's last frame
    excludes the present, and with it window and tail. Blocks that came after the stream was opened are left out, for
    their first tokens are still in the tail it was opened with.

    Args:
        window_blocks: W'.

    Raises:
        NothingToAnswer: no video in that range.
    """
    asked, last_s = time_range or TimeRange(), opened.state.last_timestamp_s
    found = store.blocks_in(opened.stream_id, asked)
    inside = range(min(found.start, opened.num_blocks), min(found.stop, opened.num_blocks))
    present = last_s is not None and asked.start_s <= last_s <= asked.end_s
    if not len(inside) and not (present and len(opened.state.tail)):
        told = "" if time_range is None else f" between {asked.start_s:g} s and {asked.end_s:g} s"
        raise NothingToAnswer(
            f"stream {opened.stream_id!r} holds no video{told}: see what it covers with cacheflow streams show",
            stream=opened.stream_id,
        )
    if not present:
        return Scope(candidates=inside, window=range(inside.stop, inside.stop), with_tail=False)
    first = max(inside.start, inside.stop - window_blocks)
    return Scope(candidates=range(inside.start, first), window=range(first, inside.stop), with_tail=True)


def search_suffix(model: VideoModel, text: str) -> Suffix:
    """What is looked for, as the model reads it. Raises: EmptyQuestion, QuestionTooLong."""
    suffix = model.prompt.suffix([Turn(question=text)])
    if model.prefix.length + len(suffix.ids) > model.max_context:
        raise QuestionTooLong(
            f"the text takes {len(suffix.ids)} tokens, more than the {model.max_context} tokens of model "
            f"{model.name!r} hold: shorten it",
            tokens=len(suffix.ids),
        )
    return suffix


def retrieve(backend: Backend, opened: OpenedStream, suffix: Suffix, blocks: range, options: AskOptions) -> list[Hit]:
    """The K blocks of `blocks` both layers agree on most, best first."""
    if not len(blocks) or not options.top_k:
        return []
    vectors = query_vectors(backend.model, backend.model.queries(suffix), opened.spec.summary)
    rankings = _rankings(backend, opened, vectors, blocks, options)
    return agreed(rankings, options.top_k, options)


def query_vectors(model: VideoModel, queries: Tensor, summary: str) -> Array:
    """What blocks are compared with that were summarised so: float32 [S, H, D] of queries [S, H, T, D].

    Raises:
        InvalidFeatures: NaN or infinity.
    """
    vectors = make_summary(summary, model.encoder.head_dim).query(queries).cpu().numpy()
    if not np.isfinite(vectors).all():
        raise InvalidFeatures(
            f"model {model.name!r} gave NaN or infinity for the question: check its weights, or use --dtype float32"
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)


def agreed(rankings: Sequence[Sequence[Hit]], top_k: int, options: AskOptions) -> list[Hit]:
    """The K blocks the rankings of first and last layer agree on most, best first."""
    first, last = rankings
    if options.stop_ratio:  # a share of 0 would still leave out what scores below 0
        first, last = stop_early(first, options.stop_ratio), stop_early(last, options.stop_ratio)
    return merge(first, last, top_k, options.merge)


def voted(by_mean: Sequence[Sequence[Hit]], per_head: Sequence[Sequence[Hit]], limit: int) -> list[list[Hit]]:
    """Each layer's best `limit` blocks by the votes of its heads; `per_head`: of every (layer, head), row-major."""
    heads = len(per_head) // len(by_mean)
    return [
        vote_ranking(per_head[layer * heads : (layer + 1) * heads], mean)[:limit] for layer, mean in enumerate(by_mean)
    ]


def retrieve_all(
    backend: Backend, opened: OpenedStream, suffixes: Sequence[Suffix], blocks: range, options: AskOptions
) -> list[Hit]:
    """The K blocks of a question and the one before it, in turn: "where was it" alone does not say what "it" is.

    Args:
        suffixes: the question, then the one before it if there is one.
    """
    own, *before = (retrieve(backend, opened, suffix, blocks, options) for suffix in suffixes)
    return merge(before[0], own, options.top_k, "interleave") if before else own


def _rankings(
    backend: Backend, opened: OpenedStream, queries: Array, blocks: range, options: AskOptions
) -> list[list[Hit]]:
    """The best M blocks of each summarised layer, queries [S, H, D] float32."""
    limit = options.num_candidates
    by_mean = backend.store.search(opened.stream_id, queries, limit=limit, blocks=blocks)
    if options.ranking == "mean":
        return by_mean
    return voted(
        by_mean,
        backend.store.search(opened.stream_id, queries, limit=limit, blocks=blocks, per_head=True),
        limit,
    )


def evidence(hits: Sequence[Hit], window: range, tokens: Mapping[int, Array]) -> tuple[Evidence, ...]:
    """Hits as stretches of time, neighbouring blocks joined, best first; then the window as one.

    Args:
        tokens: [B] of TOKEN_DTYPE of every block of the hits and the window, and of no other: what evidence costs may
            not grow with the stream.
    """
    score = {hit.block_idx: hit.score for hit in hits}
    rank = {hit.block_idx: place for place, hit in enumerate(hits)}
    runs: list[list[int]] = []
    for block_idx in sorted(score):
        if runs and runs[-1][-1] == block_idx - 1:
            runs[-1].append(block_idx)
        else:
            runs.append([block_idx])
    found = [_stretch(run, max(score[block] for block in run), tokens) for run in runs]
    found.sort(key=lambda stretch: min(rank[block] for block in stretch.block_idxs))
    if len(window):
        found.append(_stretch(list(window), None, tokens))
    return tuple(found)


def _stretch(blocks: list[int], score: float | None, tokens: Mapping[int, Array]) -> Evidence:
    return Evidence(
        start_s=float(tokens[blocks[0]]["timestamp_s"][0]),
        end_s=float(tokens[blocks[-1]]["timestamp_s"][-1]),
        block_idxs=tuple(blocks),
        score=score,
        kind="window" if score is None else "retrieved",
    )
