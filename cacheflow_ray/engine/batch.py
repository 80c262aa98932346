"""The batched encode step: many streams, two model calls, one transaction.

frames of all streams -> one padded vision batch -> each stream drops and packs
-> ragged language-model calls, one block per stream and call -> store.commit of every stream at once
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from cacheflow_ray.engine.protocol import BlockStore
from cacheflow_ray.engine.stream import StreamEncoder
from cacheflow_ray.errors import InvalidFeatures
from cacheflow_ray.media import Frame
from cacheflow_ray.models import VideoModel
from memory_store.records import Commit


@dataclass(slots=True)
class StageTimes:
    """Seconds spent per stage since the start; `encode_frames` adds to it."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a `with` block as stage `name`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


def encode_frames(
    model: VideoModel,
    feeds: Mapping[StreamEncoder, Sequence[Frame]],
    times: StageTimes,
    *,
    last: bool = False,
    failed: dict[StreamEncoder, InvalidFeatures] | None = None,
) -> None:
    """Take new frames of any number of streams as far as their outboxes; nothing is committed.

    Args:
        feeds: frames of each stream, in order.
        times: gets `vision`, `drop_and_pack` and `language_model`.
        last: these streams' sources have ended.
        failed: is given each stream that fails, and why, while the others go on; it can only be opened anew.

    Raises:
        InvalidFeatures: of one stream, without `failed`; units absorbed before it are in the streams' states.
    """
    with times.stage("drop_and_pack"):
        units = [(stream, unit) for stream, frames in feeds.items() for unit in stream.take(frames, last=last)]
    with times.stage("vision"):
        seen = model.vision.encode([[f.image for f in unit.frames] for _, unit in units if not unit.still])
        _settle(model)
    with times.stage("drop_and_pack"):
        features = iter(seen)
        for stream, unit in units:
            own = None if unit.still else next(features)
            with _failing_alone(stream, failed):
                stream.absorb(unit, own)
    encode_ready(model, list(feeds), times, failed)


def encode_ready(
    model: VideoModel,
    streams: Sequence[StreamEncoder],
    times: StageTimes,
    failed: dict[StreamEncoder, InvalidFeatures] | None = None,
) -> None:
    """Run the language model over every full block of the streams, oldest first, all streams in each call."""
    while segments := {
        stream: segment
        for stream in streams
        if stream not in (failed or ()) and (segment := stream.segment()) is not None
    }:
        with times.stage("language_model"):
            encoded = model.encoder.encode(list(segments.values()))
            _settle(model)
        with times.stage("summarise"):
            summaries = _summaries(model, dict(zip(segments, encoded, strict=True)))
            for stream, kv in zip(segments, encoded, strict=True):
                with _failing_alone(stream, failed):
                    stream.keep(kv, summaries[stream])


def _summaries(model: VideoModel, encoded: Mapping[StreamEncoder, Tensor]) -> dict[StreamEncoder, np.ndarray]:
    """[S, V, H, D] float32 of each stream's block; blocks alike are summarised together, each as if it were alone."""
    alike: dict[tuple[str, torch.Size], list[StreamEncoder]] = {}
    for stream, kv in encoded.items():
        alike.setdefault((stream.summary.name, kv.shape), []).append(stream)
    layers = list(model.summary_layers)
    found: dict[StreamEncoder, np.ndarray] = {}
    for streams in alike.values():
        keys = torch.stack([encoded[stream][layers, 0] for stream in streams])
        found |= dict(zip(streams, streams[0].summary.summarise(keys).float().cpu().numpy(), strict=True))
    return found


@contextmanager
def _failing_alone(stream: StreamEncoder, failed: dict[StreamEncoder, InvalidFeatures] | None) -> Iterator[None]:
    """The first failure of a stream goes to `failed`, where there is one."""
    try:
        yield
    except InvalidFeatures as error:
        if failed is None:
            raise
        failed.setdefault(stream, error)


def _settle(model: VideoModel) -> None:
    """Wait for an accelerator, so that its time counts where it was spent; what comes next needs the result anyway."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def commit(store: BlockStore, streams: Sequence[StreamEncoder], times: StageTimes) -> None:
    """Make everything encoded so far durable, all streams in one transaction."""
    with times.stage("store"):
        store.commit([stream.commit() for stream in streams])


def commit_apart(store: BlockStore, commits: Sequence[Commit]) -> list[Exception | None]:
    """Commit together; what is refused for the fault of one is committed one by one. Returns what each failed with."""
    try:
        store.commit(commits)
        return [None] * len(commits)
    except Exception as error:
        return [error] if len(commits) == 1 else [commit_apart(store, [own])[0] for own in commits]
