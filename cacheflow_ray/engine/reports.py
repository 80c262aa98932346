"""What the engine tells its callers. Times in seconds of stream time unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from memory_store.records import Array, JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestProgress:
    """How far one source has come; `elapsed_s` since this ingest began, counts since the stream did."""

    stream: str
    frames: int
    total_frames: int | None
    tokens_seen: int
    tokens_kept: int
    blocks: int
    elapsed_s: float
    position_s: float
    duration_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What one ingest did. Counts are the stream's totals; `resumed_from_seq` is the first frame taken in this time."""

    stream: str
    frames: int
    tokens_seen: int
    tokens_kept: int
    blocks: int
    num_bytes: int
    resumed_from_seq: int
    already_complete: bool
    warning: str | None
    elapsed_s: float
    stages_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def keep_rate(self) -> float:
        """Tokens kept / tokens seen, 0..1."""
        return self.tokens_kept / self.tokens_seen if self.tokens_seen else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """A stream as `streams show` prints it.

    `grid`: rows and columns of a frame's tokens; `frames_per_unit`: frames that share one such grid.
    """

    stream: str
    model: str
    fingerprint: str
    settings: Mapping[str, JsonValue]
    labels: Mapping[str, str]
    created_s: float
    complete: bool
    warning: str | None
    frames: int
    tokens_seen: int
    tokens_kept: int
    blocks: int
    tail_tokens: int
    num_bytes: int
    start_s: float | None
    end_s: float | None
    grid: tuple[int, int]
    frames_per_unit: int

    @property
    def keep_rate(self) -> float:
        """Tokens kept / tokens seen, 0..1."""
        return self.tokens_kept / self.tokens_seen if self.tokens_seen else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockView:
    """One stored block without its KV. `tokens`: [B] of TOKEN_DTYPE."""

    block_idx: int
    start_s: float
    end_s: float
    tokens: Array
    thumbnail: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A stretch of video an answer attended to: neighbouring blocks as one.

    `score`: the best block's fused score; None for the window, which is attended to whatever the question.
    """

    start_s: float
    end_s: float
    block_idxs: tuple[int, ...]
    score: float | None
    kind: Literal["retrieved", "window"] = "retrieved"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMoment:
    """A stretch of video, and the stream it is of."""

    stream: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFound:
    """What a search of many streams found, best first; `warnings`: what was left out, and why."""

    moments: tuple[StreamMoment, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer cost, in tokens and bytes read from the store."""

    context_tokens: int
    retrieved_blocks: int
    window_blocks: int
    tail_tokens: int
    question_tokens: int
    generated_tokens: int
    fetched_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reencoded:
    """Blocks of an answer whose KV had been dropped and was encoded again.

    Args:
        source: what from.
        exact_idxs: those of `block_idxs` whose KV is as it was, for all that influences it was kept or encoded, too.
            The others' is an approximation.
        warm_up_blocks: encoded before each, as far as there are.
        looks_other: the source's frames differ a little from what they were: another build of the decoder.
    """

    source: str
    block_idxs: tuple[int, ...]
    exact_idxs: tuple[int, ...]
    warm_up_blocks: int
    looks_other: bool = False

    @property
    def warning(self) -> str:
        """One line that tells all of it."""
        count = len(self.block_idxs)
        told = f"re-encoded from {self.source!r}: {count} block{'s' * (count > 1)} ({_list(self.block_idxs)}), "
        if self.exact_idxs == self.block_idxs:
            told += "as they were"
        else:
            told += f"an approximation with a warm-up of {self.warm_up_blocks} block{'s' * (self.warm_up_blocks != 1)}"
            told += f" (but for {_list(self.exact_idxs)}, as they were)" if self.exact_idxs else ""
        return told + ("; its pictures differ a little from what they were" if self.looks_other else "")


def _list(block_idxs: tuple[int, ...]) -> str:
    return ", ".join(map(str, block_idxs))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerResult:
    """A finished answer. `timings`: milliseconds per stage, `first_token` counted from the question's arrival;
    `reencoded`: None where all KV was kept (or a service answered, which tells it in `warnings` alone)."""

    text: str
    evidence: tuple[Evidence, ...]
    session_id: str | None
    usage: Usage
    timings: Mapping[str, float]
    warnings: tuple[str, ...]
    reencoded: Reencoded | None = None
