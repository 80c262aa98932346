"""What a stream's stored state says of it, read without torch: how far it has come, and its totals."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import safetensors

from cacheflow_ray.types import TOKEN_DTYPE
from memory_store.records import StreamState


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Totals of a stream. A token is one patch of one unit; those a pixel gate spared count as seen."""

    frames: int = 0
    units: int = 0
    tokens_seen: int = 0
    tokens_kept: int = 0
    duplicates: int = 0
    out_of_order: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Fields as of `state.EncoderState`; `tail_tokens`: tokens of the open block."""

    next_seq: int = 0
    tail_tokens: int = 0
    grid: tuple[int, int] = (0, 0)
    frames_per_unit: int = 1
    complete: bool = False
    warning: str | None = None
    counters: Counters = field(default_factory=Counters)


def about(stored: StreamState | None) -> About:
    """Of what `EncoderState.to_bytes` wrote; of nothing where nothing was committed yet."""
    if stored is None or not stored.payload:
        return About()
    tensors: dict[str, Any] = dict(safetensors.deserialize(stored.payload))  # type: ignore[no-untyped-call]
    fields = json.loads(bytes(tensors["about"]["data"]))
    return About(
        next_seq=fields["next_seq"],
        tail_tokens=len(tensors["tokens"]["data"]) // TOKEN_DTYPE.itemsize,
        grid=(fields["grid"][0], fields["grid"][1]),
        frames_per_unit=fields["frames_per_unit"],
        complete=fields["complete"],
        warning=fields["warning"],
        counters=Counters(**fields["counters"]),
    )
