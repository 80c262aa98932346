"""Questions to stored memories of several lengths, timed stage by stage by the engine itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

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
    "remember": ("once",),
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
    """A stored stream of random KV with half a block's tail, for an `Asker`."""
    if not folder.exists():
        memory = Memory(
            stream=STREAM, num_blocks=blocks, tail_tokens=model.default_block_size // 2, fps=_FPS, keep=_KEEP,
            window_blocks=StreamSpec.resolve(model.recommended.stream_settings(None), model, "").window_blocks,
        )  # fmt: skip
        with Store.open(folder) as store:
            fill(store, model, memory)
    return folder


@dataclass(slots=True, eq=False)
class Asker:
    """Questions of one kind, asked one at a time, so that other kinds can be asked between them.

    Args:
        streams: asked about in turn.
    """

    asked: Asked
    streams: tuple[str, ...]
    _vectors: float = 0.0
    _answers: list[tuple[AnswerResult, Timed]] = field(default_factory=list)

    def warm_up(self, memory: VideoMemory) -> None:
        """One question to each stream, uncounted: its index is loaded by it."""
        for stream in self.streams:
            self._ask(memory, stream)
        self._vectors = sum(num_vectors(memory, stream) for stream in self.streams) / len(self.streams)

    def ask(self, memory: VideoMemory) -> None:
        """One question that counts."""
        self._answers.append(self._ask(memory, self.streams[len(self._answers) % len(self.streams)]))

    def run(self) -> AskRun:
        """Medians of all of them, of every stage by itself."""
        results, times = zip(*self._answers, strict=True)
        stages = [stages_of(result, time) for result, time in self._answers]
        context = mean(result.usage.context_tokens for result in results)
        generated = mean(result.usage.generated_tokens for result in results)
        return AskRun(
            amounts=ask_amounts(vectors=self._vectors, context=context, tokens=generated),
            stages_s={name: median(own[name] for own in stages) for name in STAGES},
            own_s=median(time.own_s for time in times),
            clock_s=median(time.clock_s for time in times),
            generated=generated,
            fetched_bytes=mean(result.usage.fetched_bytes for result in results),
        )

    def _ask(self, memory: VideoMemory, stream: str) -> tuple[AnswerResult, Timed]:
        options = AskOptions(top_k=self.asked.top_k, max_new_tokens=self.asked.max_new_tokens)
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


def stages_of(result: AnswerResult, time: Timed) -> dict[str, float]:
    """Seconds of STAGES, that add up to `time.own_s`; what the engine's own clock has not, is remembering the turn."""
    laps = {name: ms * time.own_share for name, ms in result.timings.items()}
    before = sum(laps.get(name, 0.0) for name in ("prepare", "retrieve", "rehydrate"))
    first = laps.get("first_token", laps["total"]) - before
    return {
        "prepare": laps["prepare"] / 1e3,
        "retrieve": laps["retrieve"] / 1e3,
        "rehydrate": laps["rehydrate"] / 1e3,
        "first_token": max(0.0, first) / 1e3,
        "more_tokens": max(0.0, laps["generate"] - first) / 1e3,
        "remember": max(0.0, time.own_s - laps["total"] / 1e3),
    }
