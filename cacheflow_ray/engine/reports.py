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
class AnswerResult:
    """A finished answer. `timings`: milliseconds per stage, `first_token` counted from the question's arrival."""

    text: str
    evidence: tuple[Evidence, ...]
    session_id: str | None
    usage: Usage
    timings: Mapping[str, float]
    warnings: tuple[str, ...]
