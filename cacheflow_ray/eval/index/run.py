"""The study as a whole: for every length and block size a corpus, and on it one table per question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.eval.index.corpus import Searched, gather
from cacheflow_ray.eval.index.scorers import VECTORS
from cacheflow_ray.eval.index.study import (
    TOP_K,
    Measured,
    Way,
    layer_choices,
    measure,
    merges,
    query_forms,
    stops,
    summaries,
)
from cacheflow_ray.models import VideoModel

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """What is studied.

    Args:
        frames: lengths of streams; streams: how many of each.
        block_sizes: B.
        settings: of the streams; block size and summary are the study's own.
        per_kind: questions of each kind per stream, at most.
        chosen: vectors of VECTORS that the questions after the first are asked of; None takes the best of at most
            B / 4 vectors per block.
    """

    frames: tuple[int, ...] = (256, 1024)
    streams: int = 12
    block_sizes: tuple[int, ...] = (16, 196)
    settings: StreamSettings
    per_kind: int = 4
    chosen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Answers to one question on one corpus. `question`: summaries, layers, queries, merges or stops."""

    question: str
    frames: int
    block_size: int
    rows: tuple[Measured, ...]


def run_index(model: VideoModel, plan: IndexPlan, *, note: Note) -> Iterator[Table]:
    """Tables as they are made, lengths within block sizes."""
    for block_size in plan.block_sizes:
        # The summary a stream is made with plays no part: everything is made anew from its keys.
        settings = plan.settings.model_copy(update={"block_size": block_size, "summary": "mean"})
        for frames in plan.frames:
            corpus = gather(model, frames, plan.streams, settings, per_kind=plan.per_kind, note=note)
            corpus = [stream for stream in corpus if stream.keys.shape[1] and stream.asked]
            if not corpus or min(stream.keys.shape[1] for stream in corpus) < 2 * max(TOP_K):
                note(f"{frames} frames fill too few blocks of {block_size} tokens to choose among: left out")
                continue
            for question, rows in _tables(corpus, model.encoder.num_layers, plan):
                yield Table(question=question, frames=frames, block_size=block_size, rows=tuple(rows))


def _tables(corpus: list[Searched], num_layers: int, plan: IndexPlan) -> Iterator[tuple[str, list[Measured]]]:
    size, outer = corpus[0].keys.shape[3], (0, num_layers - 1)
    forms = [measure(corpus, way) for way in summaries(num_layers) if VECTORS[way.vectors].per_block(size) <= size]
    yield "summaries", forms
    name = _chosen(forms, size, plan.chosen)
    yield "layers", [measure(corpus, way) for way in layer_choices(num_layers, name, False)]
    yield "queries", [measure(corpus, way) for way in query_forms(num_layers, name, False)]
    yield "merges", [measure(corpus, way) for way in merges(outer, name, False)]
    yield "stops", [measure(corpus, way) for way in stops(outer, name, "rrf", False)]


def _chosen(forms: list[Measured], size: int, wanted: str | None) -> str:
    """The vectors the other questions are asked of: plain ones, for an index keeps what it was given."""
    plain = [form for form in forms if not form.way.votes and not form.way.centred]
    named = [form for form in plain if form.way.vectors == wanted]
    small = [form for form in plain if form.vectors_per_block <= max(1, size // 4)]
    return max(named or small, key=lambda form: sum(form.recall.values())).way.vectors


def describe(way: Way) -> str:
    """'recurrent4, centred, last query, layers 0+5, rrf'."""
    parts = [way.vectors]
    parts += ["centred"] if way.centred else []
    parts += ["votes"] if way.votes else []
    parts.append(f"{way.query} query")
    parts.append("layers " + "+".join(map(str, way.layers)))
    if len(way.layers) == 2:
        parts.append(way.rule + (" cut at K" if way.published_cut else ""))
    parts += [f"stop {way.stop_ratio:g}"] if way.stop_ratio else []
    return ", ".join(parts)
