"""Questions to stored memories of several lengths, timed stage by stage by the engine itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cacheflow_ray.bench.scale.sizes import Asked
from cacheflow_ray.bench.scale.waiting import Timed, timed
from cacheflow_ray.bench.synthetic import Memory, fill
from cacheflow_ray.config import AskOptions
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine import AnswerResult, VideoMemory
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.models import VideoModel
from memory_store import Store

#: Of words the bundled model knows.
QUESTION = "what color was the star with number seven"

STREAM = "asked"

#: What each stage of an answer is paid by; vectors are summaries that are searched.
STAGES: dict[str, tuple[str, ...]] = {
    "prepare": ("once",),
    "retrieve": ("once", "vectors"),
    "rehydrate": ("once", "context"),
    "first_token": ("once", "context"),
    "more_tokens": ("tokens", "tokens_context"),
}

_FPS, _KEEP = 1.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRun:
    """What questions of one kind did and took: medians.

    Args:
        stages_s: STAGES, as parts of `own_s`.
        own_s: by the clock, less what the thread waited for a core; clock_s: by the clock alone.
        generated: tokens of the answers, on average.
        fetched_bytes: of one question.
    """

    amounts: dict[str, float]
    stages_s: dict[str, float]
    own_s: float
    clock_s: float
    generated: float
    fetched_bytes: float


def fill_memory(model: VideoModel, folder: Path, blocks: int) -> Path:
    """A stored stream of random KV with half a block's tail, for `run_asks`."""
    if not folder.exists():
        memory = Memory(
            stream=STREAM, num_blocks=blocks, tail_tokens=model.default_block_size // 2, fps=_FPS, keep=_KEEP,
            window_blocks=StreamSpec.resolve(model.recommended.stream_settings(None), model, "").window_blocks,
        )  # fmt: skip
        with Store.open(folder) as store:
            fill(store, model, memory)
    return folder


def run_asks(memory: VideoMemory, streams: Sequence[str], asked: Asked, count: int) -> AskRun:
    """Ask `count` times, the streams in turn, after each was asked once uncounted."""
    options = AskOptions(top_k=asked.top_k, max_new_tokens=asked.max_new_tokens)
    for stream in streams:
        _ = memory.ask(stream, QUESTION, options=options).result
    asked_all = [_ask(memory, streams[at % len(streams)], options) for at in range(count)]
    results = [result for result, _ in asked_all]
    stages = [stages_of(result, time.own_share) for result, time in asked_all]
    vectors = sum(num_vectors(memory, stream) for stream in streams) / len(streams)
    context = sum(result.usage.context_tokens for result in results) / count
    generated = sum(result.usage.generated_tokens for result in results) / count
    return AskRun(
        amounts=ask_amounts(vectors=vectors, context=context, tokens=generated),
        stages_s={name: median(own[name] for own in stages) for name in STAGES},
        own_s=median(time.own_s for _, time in asked_all),
        clock_s=median(time.clock_s for _, time in asked_all),
        generated=generated,
        fetched_bytes=sum(result.usage.fetched_bytes for result in results) / count,
    )


def _ask(memory: VideoMemory, stream: str, options: AskOptions) -> tuple[AnswerResult, Timed]:
    with timed() as time:
        result = memory.ask(stream, QUESTION, options=options).result
    return result, time


def ask_amounts(*, vectors: float, context: float, tokens: float) -> dict[str, float]:
    """What a question does: summaries searched, tokens of the context, tokens of the answer (the first is apart)."""
    more = max(0.0, tokens - 1)
    return {"vectors": vectors, "context": context, "tokens": more, "tokens_context": more * context}


def num_vectors(memory: VideoMemory, stream: str) -> float:
    """Summaries of a stream that a question is compared with, all summarised layers together."""
    info, model = memory.stream(stream), memory.model
    summary = make_summary(str(info.settings["summary"]), model.encoder.head_dim)
    return float(info.blocks * len(model.summary_layers) * summary.vectors_per_block)


def stages_of(result: AnswerResult, own_share: float) -> dict[str, float]:
    """That share of the seconds of STAGES, which add up to the whole but for what is between them."""
    laps = {name: ms * own_share for name, ms in result.timings.items()}
    before = sum(laps.get(name, 0.0) for name in ("prepare", "retrieve", "rehydrate"))
    first = laps.get("first_token", laps["total"]) - before
    return {
        "prepare": laps["prepare"] / 1e3,
        "retrieve": laps["retrieve"] / 1e3,
        "rehydrate": laps["rehydrate"] / 1e3,
        "first_token": max(0.0, first) / 1e3,
        "more_tokens": max(0.0, laps["generate"] - first) / 1e3,
    }
