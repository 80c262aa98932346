"""How far a pushed stream has come, how it ends, and what happens to what is too much; free of torch."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from cacheflow_ray.engine.about import About


class Overload(StrEnum):
    """What happens to frames that come faster than they can be encoded.

    BLOCK: whoever pushes waits. DROP_OLDEST: the oldest waiting frames are left out. LOWER_FPS: every second waiting
    frame is left out.
    """

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    LOWER_FPS = "lower_fps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a stream has come, durably. Frames before `next_seq` are in, or were left out.

    Args:
        frames, tokens_seen, tokens_kept, duplicates, out_of_order, blocks, tail_tokens: of the stream.
        shed: frames the overload policy left out since the session was opened.
        complete: no more is taken.
    """

    next_seq: int
    frames: int = 0
    tokens_seen: int = 0
    tokens_kept: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    blocks: int = 0
    tail_tokens: int = 0
    shed: int = 0
    complete: bool = False

    @classmethod
    def at(cls, about: About, num_blocks: int, shed: int = 0) -> Self:
        """Of a state that is durable, or about to be."""
        counters = about.counters
        return cls(
            next_seq=about.next_seq,
            frames=counters.frames,
            tokens_seen=counters.tokens_seen,
            tokens_kept=counters.tokens_kept,
            duplicates=counters.duplicates,
            out_of_order=counters.out_of_order,
            blocks=num_blocks,
            tail_tokens=about.tail_tokens,
            shed=shed,
            complete=about.complete,
        )


@dataclass(slots=True, eq=False)
class End:
    """How a session ends once its frames are encoded: for good, or so that it can be gone on with."""

    final: bool
    warning: str | None = None
    complete: bool = True
    done: Future[Position] = field(default_factory=Future)
