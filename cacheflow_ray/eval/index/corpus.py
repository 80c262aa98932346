"""Keys of all blocks, queries of all questions, and which blocks hold the answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.eval.needle.streams import Remembered, remember, stored_keys
from cacheflow_ray.models import Turn, VideoModel
from cacheflow_ray.world import Question, make_script
from memory_store import Store

_TOGETHER = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """One question.

    Args:
        queries: [L, H, T, D] un-rotated queries of its own words, heads averaged per group, float32.
        needed: of each event, the full blocks that show it; none is empty.
    """

    kind: str
    queries: Tensor
    needed: tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Searched:
    """One stream. `keys`: [L, N, H, B, D] un-rotated, float32."""

    keys: Tensor
    asked: tuple[Asked, ...]


def gather(
    model: VideoModel,
    frames: int,
    streams: int,
    settings: StreamSettings,
    *,
    per_kind: int,
    note: Callable[[str], None],
) -> list[Searched]:
    """Streams of held-out seeds 0, 1, ...; questions whose events were kept, in full blocks."""
    found: list[Searched] = []
    for first in range(0, streams, _TOGETHER):
        scripts = [make_script(seed, frames) for seed in range(first, min(first + _TOGETHER, streams))]
        with tempfile.TemporaryDirectory(prefix="cacheflow-index-") as place, Store.open(Path(place)) as store:
            backend = Backend(model=model, store=store)
            found += [_searched(backend, one) for one in remember(backend, scripts, "s", settings, per_kind=per_kind)]
        note(f"{frames} frames, blocks of {settings.block_size}: {len(found)} of {streams} streams")
    return found


def _searched(backend: Backend, stream: Remembered) -> Searched:
    layers = range(backend.model.encoder.num_layers)
    keys = stored_keys(backend, stream, layers).transpose(0, 1).contiguous()
    asked = [_asked(backend.model, stream, question) for question in stream.questions if question.events]
    return Searched(keys=keys, asked=tuple(one for one in asked if one is not None))


def _asked(model: VideoModel, stream: Remembered, question: Question) -> Asked | None:
    needed = tuple(stream.blocks_of(event) - {stream.num_blocks} for event in question.events)
    if not all(needed):
        return None
    queries = model.queries(model.prompt.suffix([Turn(question=question.text)]), tuple(range(model.encoder.num_layers)))
    return Asked(kind=question.kind, queries=queries.cpu(), needed=needed)
