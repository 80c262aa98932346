"""What each kind of actor counts, as Prometheus has it. The service adds the actor's name and serves them all.

cacheflow_encoder_*   frames, tokens seen and kept, blocks, steps, batch sizes, seconds by stage, waiting, shed
cacheflow_answerer_*  questions, answers under way and per step, seconds by stage, tokens, bytes fetched
cacheflow_store_*     streams, blocks, bytes, cache hits
process_*             memory, CPU time, open files
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from cacheflow_ray.actors.process import process_registry
from cacheflow_ray.engine.position import Position
from cacheflow_ray.engine.reports import AnswerResult

if TYPE_CHECKING:
    from cacheflow_ray.engine.pool import StepReport

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class EncoderMetrics:
    """Of one encoder."""

    def __init__(self) -> None:
        self._registry = process_registry()
        name = "cacheflow_encoder_"
        self._frames = Counter(name + "frames", "Frames encoded.", registry=self._registry)
        self._tokens_seen = Gauge(name + "tokens_seen", "Tokens of the open streams.", registry=self._registry)
        self._tokens_kept = Gauge(name + "tokens_kept", "Of them, kept.", registry=self._registry)
        self._blocks = Gauge(name + "blocks", "Blocks of the open streams.", registry=self._registry)
        self._steps = Counter(name + "steps", "Encoding steps.", registry=self._registry)
        self._streams_per_step = Histogram(
            name + "streams_per_step", "Streams in one step.", buckets=_COUNTS, registry=self._registry
        )
        self._frames_per_step = Histogram(
            name + "frames_per_step", "Frames in one step.", buckets=_COUNTS, registry=self._registry
        )
        self._stage = Histogram(
            name + "stage_seconds", "Seconds of a step by stage.", ["stage"], buckets=_SECONDS, registry=self._registry
        )
        self._open = Gauge(name + "open_streams", "Streams open.", registry=self._registry)
        self._queued = Gauge(name + "queued_frames", "Frames waiting.", registry=self._registry)
        self._shed = Gauge(name + "shed_frames", "Frames left out by overload policies.", registry=self._registry)

    def step(self, report: StepReport) -> None:
        """Count one step."""
        self._steps.inc()
        self._frames.inc(report.frames)
        self._streams_per_step.observe(report.streams)
        self._frames_per_step.observe(report.frames)
        for stage, seconds in report.stages_s.items():
            self._stage.labels(stage).observe(seconds)

    def text(self, live: Mapping[str, tuple[Position, int]]) -> str:
        """All of it now."""
        positions = [position for position, _ in live.values()]
        self._open.set(len(live))
        self._queued.set(sum(waiting for _, waiting in live.values()))
        self._shed.set(sum(own.shed for own in positions))
        self._tokens_seen.set(sum(own.tokens_seen for own in positions))
        self._tokens_kept.set(sum(own.tokens_kept for own in positions))
        self._blocks.set(sum(own.blocks for own in positions))
        return generate_latest(self._registry).decode()


class AnswererMetrics:
    """Of one answerer."""

    def __init__(self) -> None:
        self._registry = process_registry()
        name = "cacheflow_answerer_"
        self._answers = Counter(name + "answers", "Answers finished.", registry=self._registry)
        self._stage = Histogram(
            name + "stage_seconds", "Seconds of an answer by stage.", ["stage"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._tokens = Counter(name + "generated_tokens", "Tokens generated.", registry=self._registry)
        self._bytes = Counter(name + "fetched_bytes", "Bytes read from stores.", registry=self._registry)
        self._per_step = Histogram(
            name + "answers_per_step", "Answers that shared a step of the model.", buckets=_COUNTS,
            registry=self._registry,
        )  # fmt: skip
        self._under_way = Gauge(name + "under_way", "Questions under way.", registry=self._registry)

    def step(self, answers: int) -> None:
        """Count one step of generation."""
        self._per_step.observe(answers)

    def answered(self, result: AnswerResult) -> None:
        """Count one answer."""
        self._answers.inc()
        self._tokens.inc(result.usage.generated_tokens)
        self._bytes.inc(result.usage.fetched_bytes)
        for stage, milliseconds in result.timings.items():
            self._stage.labels(stage).observe(milliseconds / 1e3)

    def text(self, under_way: int) -> str:
        """All of it now."""
        self._under_way.set(under_way)
        return generate_latest(self._registry).decode()
