"""All lengths, streams, questions and methods in order, a handful of streams in the store at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.core.dropping import KEEP_ALL
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.errors import UsageError
from cacheflow_ray.eval.needle.policies import METHODS, Case
from cacheflow_ray.eval.needle.rows import Record
from cacheflow_ray.eval.needle.streams import Remembered, remember
from cacheflow_ray.models import VideoModel
from cacheflow_ray.world import Difficulty, Question, Script, make_script
from memory_store import Store

Note = Callable[[str], None]

#: Streams ingested together, so that the encoder's batches are full.
_TOGETHER = 12

#: Above this many frames a store of whole frames takes gigabytes: `rekv` is left out unless it is asked for by name.
WHOLE_FRAMES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedlePlan:
    """What is measured.

    Args:
        frames: stream lengths.
        methods: names of METHODS.
        top_k: numbers of retrieved blocks.
        seeds: of streams; None takes as many as `questions` need.
        questions: at least so many per length where `seeds` is None.
        per_kind: questions of each kind per stream, at most.
        settings: of the thinned streams.
        ask: how `ours` asks.
        difficulty: of the streams.
    """

    frames: tuple[int, ...] = (64, 256, 1024)
    methods: tuple[str, ...] = tuple(METHODS)
    top_k: tuple[int, ...] = (8,)
    seeds: tuple[int, ...] | None = None
    questions: int = 300
    per_kind: int = 4
    settings: StreamSettings
    ask: AskOptions
    difficulty: Difficulty | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise UsageError(f"no method is called {unknown[0]!r}: use {', '.join(METHODS)}")


def run_needle(model: VideoModel, plan: NeedlePlan, *, note: Note, folder: Path | None = None) -> list[Record]:
    """Every record, in order of lengths, streams and questions.

    Args:
        folder: where stores are made and deleted again; None takes the system's.
    """
    records: list[Record] = []
    for length in plan.frames:
        started, asked = perf_counter(), 0
        for scripts in _batches(plan, length):
            with (
                tempfile.TemporaryDirectory(prefix="cacheflow-needle-", dir=folder) as place,
                Store.open(place) as store,
            ):
                for case in _cases(Backend(model=model, store=store), plan, scripts):
                    records += list(_asked(case, plan))
                    asked += len(case.thinned.questions)
            note(f"{length} frames: {asked} questions in {perf_counter() - started:.0f} s")
            if plan.seeds is None and asked >= plan.questions:
                break
    return records


def _batches(plan: NeedlePlan, length: int) -> Iterator[list[Script]]:
    seeds = iter(range(1_000_000) if plan.seeds is None else plan.seeds)
    together = _TOGETHER if length <= 2048 else 2
    while batch := [seed for seed, _ in zip(seeds, range(together), strict=False)]:
        yield [make_script(seed, length, plan.difficulty) for seed in batch]


def _cases(backend: Backend, plan: NeedlePlan, scripts: Sequence[Script]) -> Iterator[Case]:
    thinned = remember(backend, scripts, "thinned", plan.settings, per_kind=plan.per_kind)
    whole: Sequence[Remembered | None] = [None] * len(scripts)
    if "rekv" in plan.methods and scripts[0].num_frames < WHOLE_FRAMES:
        undropped = plan.settings.model_copy(update={"tau": KEEP_ALL, "adaptive": False, "pixel_gate": None})
        whole = remember(backend, scripts, "whole", undropped, per_kind=plan.per_kind)
    for kept, full in zip(thinned, whole, strict=True):
        window = plan.ask.window_blocks
        yield Case(
            backend=backend, thinned=kept, whole=full, options=plan.ask,
            window_blocks=kept.opened.spec.window_blocks if window is None else window,
        )  # fmt: skip


def _asked(case: Case, plan: NeedlePlan) -> Iterator[Record]:
    for number, question in enumerate(case.thinned.questions):
        for top_k in plan.top_k:
            for name in plan.methods:
                record = _record(case, name, number, question, top_k)
                if record is not None:
                    yield record


def _record(case: Case, name: str, number: int, question: Question, top_k: int) -> Record | None:
    started = perf_counter()
    given = METHODS[name](case, question, top_k)
    if given is None:
        return None
    stream = case.whole if name == "rekv" and case.whole is not None else case.thinned
    script, counters = stream.script, stream.opened.state.counters
    return Record(
        method=name,
        frames=script.num_frames,
        top_k=top_k,
        question=(script.seed, number),
        kind=question.kind,
        right=given.text == question.answer,
        found=given.found,
        deciles=tuple(10 * event.start // script.num_frames for event in question.events),
        tokens=given.tokens,
        kept_tokens=len(case.thinned.tokens),
        total_tokens=counters.tokens_seen,
        drop_rate=_drop_rate(name, case, stream),
        index_bytes_per_block=_index_bytes(name, case, stream),
        ms=(perf_counter() - started) * 1e3,
    )


def _drop_rate(name: str, case: Case, stream: Remembered) -> float:
    return 0.0 if name in ("last-frames", "uniform") else 1 - stream.keep_rate


def _index_bytes(name: str, case: Case, stream: Remembered) -> float:
    """Bytes of the vectors a method ranks a block by."""
    encoder = case.backend.model.encoder
    per_vector = 4 * encoder.num_kv_heads * encoder.head_dim
    if name == "rekv":
        return per_vector * encoder.num_layers
    if name.startswith("cacheflow"):
        return 2 * per_vector
    if name == "ours":
        return 2 * per_vector * make_summary(stream.opened.spec.summary, encoder.head_dim).vectors_per_block
    return 0.0
