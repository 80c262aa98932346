"""Searching many streams as one: every layer ranks the blocks of them all, and these agree as within a stream.

    question -> queries -> library index of each layer -> consensus -> best blocks -> moments, stream by stream

Scores of different streams are cosines with the same vectors, so they compare; what was fused per stream would not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor

from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.reports import LibraryFound, StreamMoment
from cacheflow_ray.engine.retrieval import agreed, evidence, query_vectors, search_suffix, voted
from cacheflow_ray.engine.scope import EVERYWHERE, START, LibraryScope, Where, began_s, own_times, records_of
from cacheflow_ray.engine.spec import check_fingerprint
from cacheflow_ray.errors import NothingToAnswer
from memory_store.errors import BlockNotFound, StreamNotFound
from memory_store.everywhere import best_of
from memory_store.records import Hit, LibraryHit, StreamRecord, TimeRange

#: A stream and a block of it.
_Place: TypeAlias = tuple[str, int]

#: Names told of streams that are left out.
_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Searched:
    """What is searched, and what is left out, and why.

    Args:
        names: streams of the model by the summary their blocks were made with; None: all streams.
        time_range: of every stream's own time, or one for each stream; streams without one are not searched.
    """

    names: dict[str, list[str] | None]
    time_range: TimeRange | Mapping[str, TimeRange] | None
    warnings: tuple[str, ...]


def search_library(backend: Backend, where: Where, text: str, options: AskOptions) -> LibraryFound:
    """Moments of all the streams, best first, up to `options.top_k` of them.

    The best blocks are taken, as many as make so many moments. Each layer brings `options.num_candidates` of them.

    Args:
        where: of streams another model made, those named are refused, others are left out with a warning.

    Raises:
        EmptyQuestion, QuestionTooLong; StreamNotFound: one that is named. FingerprintMismatch: one that is named, or
        all, were written with another model. NothingToAnswer: no such stream, or none of them has a block there.
    """
    searched = _searched(backend, where, options.time_range)
    queries = backend.model.queries(search_suffix(backend.model, text))
    best = _best_blocks(_rankings(backend, searched, queries, options), options)
    moments = _moments(backend, _as_many_as_make(best, options.top_k))
    if options.top_k and not moments:
        when = _told_range(options.time_range) or ("" if _recorded(where) is None else " of that time")
        left_out = f" ({'; '.join(searched.warnings)})" if searched.warnings else ""
        raise NothingToAnswer(f"none of the {_told(where)} holds a whole block of video{when}{left_out}")
    return LibraryFound(moments=moments, warnings=searched.warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToAsk:
    """The stream that answers, the part of its time that is asked about, and what was left out of the search."""

    stream: str
    time_range: TimeRange | None
    warnings: tuple[str, ...] = ()


def stream_to_ask(backend: Backend, where: Where, question: str, options: AskOptions) -> ToAsk:
    """The stream with the best moment for a question; of streams named of which none holds a whole block, the first.

    Raises:
        as `search_library`.
    """
    try:
        found = search_library(backend, where, question, options.model_copy(update={"top_k": max(1, options.top_k)}))
    except NothingToAnswer:
        if isinstance(where, LibraryScope):
            raise
        return ToAsk(stream=where[0], time_range=options.time_range)
    stream, time_range = found.moments[0].stream, options.time_range
    if (recorded := _recorded(where)) is not None:
        time_range = own_times([backend.store.get_stream(stream)], recorded, time_range).get(stream, time_range)
    return ToAsk(stream=stream, time_range=time_range, warnings=found.warnings)


def _searched(backend: Backend, where: Where, time_range: TimeRange | None) -> _Searched:
    records = records_of(backend.store, where)
    ours = [record for record in records if record.fingerprint == backend.model.fingerprint]
    others = [record for record in records if record.fingerprint != backend.model.fingerprint]
    if others and not (ours and isinstance(where, LibraryScope)):
        check_fingerprint(others[0], backend.model)
    names: dict[str, list[str] | None] = {}
    for record in ours:
        own = names.setdefault(str(record.settings["summary"]), [])
        assert own is not None
        own.append(record.stream_id)
    if where == EVERYWHERE and len(names) == 1:
        names = dict.fromkeys(names)
    warnings = _left_out(others, "written with another model")
    if (recorded := _recorded(where)) is None:
        return _Searched(names=names, time_range=time_range, warnings=warnings)
    unknown = [record for record in ours if began_s(record) is None]
    warnings += _left_out(unknown, f"whose label {START!r} does not tell when they began")
    return _Searched(names=names, time_range=own_times(ours, recorded, time_range), warnings=warnings)


def _recorded(where: Where) -> TimeRange | None:
    return where.recorded if isinstance(where, LibraryScope) else None


def _left_out(records: Sequence[StreamRecord], why: str) -> tuple[str, ...]:
    if not records:
        return ()
    named = ", ".join(record.stream_id for record in records[:_TOLD]) + (", ..." if len(records) > _TOLD else "")
    count = "1 stream" if len(records) == 1 else f"{len(records)} streams"
    return (f"left out {count} {why}: {named}",)


def _rankings(
    backend: Backend, searched: _Searched, queries: Tensor, options: AskOptions
) -> tuple[list[list[LibraryHit]], list[list[LibraryHit]]]:
    """The best M blocks of each layer, and, where they vote, of each (layer, head); queries [S, H, T, D]."""
    by_mean: list[list[list[LibraryHit]]] = []
    per_head: list[list[list[LibraryHit]]] = []
    for summary, names in searched.names.items():
        search = partial(
            backend.store.library.search,
            query_vectors(backend.model, queries, summary),
            fingerprint=backend.model.fingerprint,
            limit=options.num_candidates,
            streams=names,
            time_range=searched.time_range,
        )
        by_mean.append(search())
        if options.ranking == "votes":
            per_head.append(search(per_head=True))
    return _joined(by_mean, options.num_candidates), _joined(per_head, options.num_candidates)


def _joined(parts: Iterable[list[list[LibraryHit]]], limit: int) -> list[list[LibraryHit]]:
    return [best_of(rankings, limit) for rankings in zip(*parts, strict=True)]


def _best_blocks(
    rankings: tuple[list[list[LibraryHit]], list[list[LibraryHit]]], options: AskOptions
) -> list[tuple[_Place, float]]:
    """All blocks the layers brought, best first, with their fused scores."""
    places = sorted({(hit.stream_id, hit.block_idx) for ranking in [*rankings[0], *rankings[1]] for hit in ranking})
    number = {place: at for at, place in enumerate(places)}
    by_mean, per_head = (
        [[Hit(block_idx=number[hit.stream_id, hit.block_idx], score=hit.score) for hit in ranking] for ranking in own]
        for own in rankings
    )
    if per_head:
        by_mean = voted(by_mean, per_head, options.num_candidates)
    return [(places[hit.block_idx], hit.score) for hit in agreed(by_mean, len(places), options)]


def _as_many_as_make(best: Sequence[tuple[_Place, float]], top_k: int) -> list[tuple[_Place, float]]:
    """The best blocks, up to the first that would make one moment too many; neighbours are one moment."""
    taken: set[_Place] = set()
    count = 0
    for at, ((stream, block_idx), _) in enumerate(best):
        count += 1 - ((stream, block_idx - 1) in taken) - ((stream, block_idx + 1) in taken)
        if count > top_k:
            return list(best[:at])
        taken.add((stream, block_idx))
    return list(best)


def _moments(backend: Backend, blocks: Sequence[tuple[_Place, float]]) -> tuple[StreamMoment, ...]:
    """In order of their best blocks; without those of streams that are deleted meanwhile."""
    rank = {place: at for at, (place, _) in enumerate(blocks)}
    hits: dict[str, list[Hit]] = {}
    for (stream, block_idx), score in blocks:
        hits.setdefault(stream, []).append(Hit(block_idx=block_idx, score=score))
    moments: list[StreamMoment] = []
    for stream, own in hits.items():
        with suppress(StreamNotFound, BlockNotFound):
            found = [hit.block_idx for hit in own]
            tokens = dict(zip(found, backend.store.read_tokens(stream, found), strict=True))
            moments += [StreamMoment(stream=stream, evidence=item) for item in evidence(own, range(0), tokens)]
    moments.sort(key=lambda moment: min(rank[moment.stream, at] for at in moment.evidence.block_idxs))
    return tuple(moments)


def _told(where: Where) -> str:
    return str(where) if isinstance(where, LibraryScope) else f"streams {', '.join(map(repr, where))}"


def _told_range(time_range: TimeRange | None) -> str:
    if time_range is None or (time_range.start_s, time_range.end_s) == (-math.inf, math.inf):
        return ""
    return f" between {time_range.start_s:g} s and {time_range.end_s:g} s"
