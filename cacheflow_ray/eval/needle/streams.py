"""Streams of the world in a real store, several at once, with the truth about every stored token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.arrays import as_array
from cacheflow_ray.engine.batch import StageTimes, commit, encode_frames
from cacheflow_ray.engine.opened import Backend, OpenedStream, open_stream
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.stream import StreamEncoder
from cacheflow_ray.world import COVERED, Event, Question, Script, frames, labels, make_questions
from memory_store.records import StreamRecord

#: Frames of each stream per step.
_STEP = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Remembered:
    """One stream in the store.

    Args:
        script, questions: what was shown, and what is asked about it.
        opened: as a question finds it.
        tokens: of all blocks and the tail, in order, [n] of TOKEN_DTYPE.
    """

    script: Script
    questions: tuple[Question, ...]
    opened: OpenedStream
    tokens: npt.NDArray[Any]

    @property
    def block_size(self) -> int:
        """B."""
        return self.opened.spec.block_size

    @property
    def num_blocks(self) -> int:
        """Full blocks; what is behind them is the tail, counted as one block more."""
        return self.opened.num_blocks

    @property
    def keep_rate(self) -> float:
        """Tokens kept / tokens seen."""
        counters = self.opened.state.counters
        return counters.tokens_kept / counters.tokens_seen

    def blocks_of(self, event: Event) -> frozenset[int]:
        """Blocks that hold a token showing the event; `num_blocks` stands for the tail. Empty: nothing was kept."""
        first, stop = np.searchsorted(self.tokens["frame_idx"], (event.start, event.stop))
        own = self.tokens[first:stop]
        shown = np.zeros(len(own), bool)
        for index in np.unique(own["frame_idx"]).tolist():
            cover = _cover(self.script, event, index)
            at = own["frame_idx"] == index
            shown[at] = cover[own["row"][at], own["col"][at]] >= COVERED
        return frozenset(((first + np.flatnonzero(shown)) // self.block_size).tolist())


def _cover(script: Script, event: Event, index: int) -> npt.NDArray[np.float32]:
    """Of each token of a frame, how much of it the event covers."""
    for other, present in zip(script.active(index), labels(script, index).things, strict=True):
        if other == event:
            return present.cover
    raise AssertionError("the event is not to be seen in this frame")


def remember(
    backend: Backend,
    scripts: Sequence[Script],
    prefix: str,
    settings: StreamSettings,
    *,
    per_kind: int,
    progress: Callable[[int], None] = lambda frames: None,
) -> list[Remembered]:
    """Ingest scripts of one length together, each as stream `prefix-seed`.

    Args:
        progress: called with the frames taken in since the call before.
    """
    encoders = {script: _encoder(backend, f"{prefix}-{script.seed}", settings) for script in scripts}
    times = StageTimes()
    for start in range(0, scripts[0].num_frames, _STEP):
        feeds = {encoders[script]: list(frames(script, start=start, stop=start + _STEP)) for script in scripts}
        encode_frames(backend.model, feeds, times)
        commit(backend.store, list(encoders.values()), times)
        progress(sum(map(len, feeds.values())))
    return [_remembered(backend, script, encoder, per_kind) for script, encoder in encoders.items()]


def _encoder(backend: Backend, name: str, settings: StreamSettings) -> StreamEncoder:
    spec = StreamSpec.resolve(settings, backend.model, "")
    backend.store.create_stream(
        StreamRecord(
            stream_id=name, fingerprint=backend.model.fingerprint, settings=spec.as_settings(), created_s=time()
        )
    )
    return StreamEncoder(backend, name, spec)


def _remembered(backend: Backend, script: Script, encoder: StreamEncoder, per_kind: int) -> Remembered:
    opened = open_stream(backend, encoder.stream_id)
    stored = backend.store.read_tokens(encoder.stream_id, range(opened.num_blocks)) if opened.num_blocks else []
    return Remembered(
        script=script,
        questions=make_questions(script, per_kind=per_kind),
        opened=opened,
        tokens=np.concatenate([*stored, opened.state.tail.tokens]),
    )


def stored_keys(backend: Backend, stream: Remembered, layers: Sequence[int]) -> Tensor:
    """Un-rotated keys of all full blocks, float32 [N, S, H, B, D]."""
    model, count = backend.model, stream.num_blocks
    heads, width = model.encoder.num_kv_heads, model.encoder.head_dim
    keys = torch.empty((len(layers), heads, count * stream.block_size, width), dtype=model.dtype)
    values = torch.empty_like(keys)
    name = stream.opened.stream_id
    with backend.store.reader(name, range(count), fingerprint=model.fingerprint) as reader:
        for place, layer in enumerate(layers):
            at = slice(place, place + 1)
            reader.read(range(layer, layer + 1), as_array(keys[at]), as_array(values[at]))
    blocks: Tensor = keys.unflatten(2, (count, stream.block_size)).permute(2, 0, 1, 3, 4).float()
    return blocks
