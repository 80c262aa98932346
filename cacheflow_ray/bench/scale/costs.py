"""Unit costs: what a frame, a kept token, a block and a question take of one processor. All the model knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from cacheflow_ray.bench.scale.dimensions import VECTOR_BYTES
from memory_store.records import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionCosts:
    """Seconds of one question are

        base + vector * (summaries searched) + context * (tokens of the context)
             + (tokens of the answer - 1) * (token + token_context * (tokens of the context))

    Args:
        base_s: of every question: the prompt read, the tail encoded, the first token.
        vector_s: of one summary that is searched.
        context_s: of one token of the context: its KV fetched, verified, rotated, attended to.
        token_s, token_context_s: of one more token of the answer, and of each context token it attends to.
    """

    base_s: float
    vector_s: float
    context_s: float
    token_s: float
    token_context_s: float

    def seconds(self, *, vectors: float, context: float, tokens: float) -> float:
        more = max(0.0, tokens - 1) * (self.token_s + self.token_context_s * context)
        return self.base_s + self.vector_s * vectors + self.context_s * context + more


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one model on one kind of processor.

    Args:
        name: for tables.
        processor: what encodes and answers: a GPU, or one core of a CPU.
        patches, block_tokens, window_blocks: P, B, W.
        frame_s: one processor's time for a sampled frame: vision, dropping, packing.
        megapixel_s: and for every megapixel of it: resizing.
        token_s: the same for a kept token: language model, summary, commit.
        room_streams: streams whose windows fit one processor's memory; None: as many as one encoder may have open.
        decode_s: one core's time for a megapixel of a decoded source frame, by codec.
        kv_bytes: of one block as the model computes it.
        block_bytes: of one block on disk, by `kv_codec`: KV, tokens, summary, thumbnail.
        summary_bytes: of one block on disk whose KV was dropped.
        vectors: summaries of one block, all summarised layers.
        flat_bytes: RAM of one block's summaries, of a stream that is searched.
        library_bytes: in the library's sealed segments, by codec.
        question: of one question.
        sources: field -> where its number is from.
    """

    name: str
    processor: Literal["gpu", "core"]
    patches: int
    block_tokens: int
    window_blocks: int
    frame_s: float
    megapixel_s: float
    token_s: float
    room_streams: int | None
    decode_s: Mapping[str, float]
    kv_bytes: float
    block_bytes: Mapping[str, float]
    summary_bytes: float
    vectors: int
    flat_bytes: float
    library_bytes: Mapping[str, float]
    question: QuestionCosts
    sources: Mapping[str, str]

    def block_s(self, keep: float, megapixels: float) -> float:
        """One processor's time for all frames that fill a block, and the block."""
        frame_s = self.frame_s + self.megapixel_s * megapixels
        return self.block_tokens * (frame_s / (self.patches * keep) + self.token_s)

    def as_json(self) -> dict[str, JsonValue]:
        return asdict(self)


def library_bytes(vectors: int, numbers: int) -> dict[str, float]:
    """RAM of a block's vectors of so many numbers in the library's sealed segments, by codec."""
    return {codec: float(vectors * VECTOR_BYTES[codec](numbers)) for codec in ("sq8", "rabitq")}
