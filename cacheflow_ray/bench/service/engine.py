"""The engine alone, in this process: the pool an encoder's actor has, given the same frames, and a store beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from cacheflow_ray.bench.service.pushing import Push, stream_frames
from cacheflow_ray.config import EncoderOptions
from cacheflow_ray.engine.creating import WantedStream, ensure_stream
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.pool import EncoderPool
from cacheflow_ray.engine.position import End, Position
from cacheflow_ray.media import Frame
from cacheflow_ray.models import VideoModel
from memory_store import Store

_CLOSE_S = 60.0

#: Frames of a push; of each stream two are under way.
_PUSHED = 16


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """So many threads of torch's in this process meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ingest_in_process(model: VideoModel, folder: Path, push: Push, options: EncoderOptions) -> float:
    """Seconds from making the streams to their last frame durable; `push` says which, its address is not used."""
    frames = {name: list(stream_frames(number, push.num_frames)) for number, name in enumerate(push.names)}
    with Store.open(folder) as store:
        backend = Backend(model=model, store=store)
        pool = EncoderPool(backend, options)
        try:
            started = perf_counter()
            epochs: dict[str, int] = {}
            for name in push.names:
                ensure_stream(backend, WantedStream(stream_id=name, settings=push.settings))
                epochs[name] = store.claim(name)
                pool.open(name, epochs[name])
            _push(pool, epochs, frames)
            return perf_counter() - started
        finally:
            pool.close(_CLOSE_S)


def _push(pool: EncoderPool, epochs: dict[str, int], frames: dict[str, list[Frame]]) -> None:
    waiting: deque[Future[Position]] = deque()
    for start in range(0, max(map(len, frames.values())), _PUSHED):
        for name, own in frames.items():
            while len(waiting) >= 2 * len(frames):
                waiting.popleft().result()
            makes = [partial(_same, frame) for frame in own[start : start + _PUSHED]]
            waiting.append(pool.push(name, epochs[name], makes))
    for end in [pool.finish(name, epochs[name], End(final=True)) for name in frames]:
        end.result()


def _same(frame: Frame) -> Frame:
    return frame
