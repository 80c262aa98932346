"""Streams of the synthetic world through the client; runs in a process of its own, as a client does.

Frames are sent as raw RGB: the engine is given the same pixels, so that neither side has a codec's work to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from time import perf_counter
from typing import Any

from cacheflow_ray.actors.api import PayloadKind, StreamView
from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.reports import IngestProgress
from cacheflow_ray.media import Frame
from cacheflow_ray.service.client import AsyncClient, IngestOptions
from cacheflow_ray.world import Difficulty, make_script
from cacheflow_ray.world import frames as filmed

#: Different pictures there are; every stream begins elsewhere among them.
_PICTURES = 96
_APART = 5
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Streams to push at once.

    Args:
        address: of the gateway.
        names: of the streams, which are made.
        num_frames: of each; None: as many as there is time for.
        settings: None: as the model recommends.
        ahead: frames of each that may be on their way; None: as many as it has credits for.
    """

    address: str
    names: tuple[str, ...]
    num_frames: int | None = None
    settings: StreamSettings | None = None
    ahead: int | None = None


def names_of(run: str, count: int) -> tuple[str, ...]:
    """Of the streams of one run of a part."""
    return tuple(f"bench-{run}-{number}" for number in range(count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What became durable meanwhile: frames of each stream, and tokens kept of all."""

    seconds: float
    frames: tuple[int, ...]
    tokens: int

    @property
    def frames_per_s(self) -> float:
        return sum(self.frames) / self.seconds

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def stream_frames(number: int, num_frames: int | None) -> Iterator[Frame]:
    """Frames of the `number`th stream, one a second; the pictures come round again."""
    pictures = _pictures()
    for seq in count() if num_frames is None else range(num_frames):
        image = pictures[(seq + _APART * number) % _PICTURES].image
        yield Frame(seq=seq, timestamp_s=float(seq), image=image)


@cache
def _pictures() -> list[Frame]:
    return list(filmed(make_script(0, _PICTURES, Difficulty())))


def push_all(push: Push) -> Pushed:
    """Push streams to their end: from their making to their last frame durable."""
    return asyncio.run(_push_all(push))


def push_for(push: Push, seconds: float) -> Pushed:
    """Push endless streams, and count for so long once each has something durable."""
    return asyncio.run(_push_for(push, seconds))


async def _push_all(push: Push) -> Pushed:
    _pictures()
    durable = _Durable()
    async with AsyncClient(push.address) as client:
        started = perf_counter()
        await asyncio.gather(*_ingests(client, push, durable))
        seconds = perf_counter() - started
    return durable.since(_Durable(), push.names, seconds)


async def _push_for(push: Push, seconds: float) -> Pushed:
    _pictures()
    durable = _Durable()
    async with AsyncClient(push.address) as client:
        ingests = [asyncio.create_task(ingest) for ingest in _ingests(client, push, durable)]
        try:
            while len(durable.frames) < len(push.names):
                await _pause(ingests, _LOOK_EVERY_S)
            before, started = durable.copy(), perf_counter()
            await _pause(ingests, seconds)
            return durable.since(before, push.names, perf_counter() - started)
        finally:
            for ingest in ingests:
                ingest.cancel()
            await asyncio.gather(*ingests, return_exceptions=True)


@dataclass(slots=True)
class _Durable:
    """The latest count of each stream."""

    frames: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    def count(self, progress: IngestProgress) -> int:
        """Returns how many frames are new."""
        new = progress.frames - self.frames.get(progress.stream, 0)
        self.frames[progress.stream], self.tokens[progress.stream] = progress.frames, progress.tokens_kept
        return new

    def copy(self) -> _Durable:
        return _Durable(dict(self.frames), dict(self.tokens))

    def since(self, before: _Durable, names: tuple[str, ...], seconds: float) -> Pushed:
        return Pushed(
            seconds=seconds,
            frames=tuple(self.frames.get(name, 0) - before.frames.get(name, 0) for name in names),
            tokens=sum(self.tokens.get(name, 0) - before.tokens.get(name, 0) for name in names),
        )


def _ingests(client: AsyncClient, push: Push, durable: _Durable) -> list[Coroutine[Any, Any, StreamView]]:
    return [_ingest(client, push, durable, number) for number in range(len(push.names))]


async def _ingest(client: AsyncClient, push: Push, durable: _Durable, number: int) -> StreamView:
    frames = stream_frames(number, push.num_frames)
    room = asyncio.Semaphore(push.ahead or 0)

    def watch(progress: IngestProgress) -> None:
        for _ in range(durable.count(progress)):
            room.release()

    source = frames if push.ahead is None else _as_there_is_room(frames, room)
    options = IngestOptions(payload=PayloadKind.RGB, settings=push.settings)
    return await client.ingest(push.names[number], source, options=options, progress=watch)


async def _as_there_is_room(frames: Iterator[Frame], room: asyncio.Semaphore) -> AsyncIterator[Frame]:
    for frame in frames:
        await room.acquire()
        yield frame


async def _pause(ingests: list[asyncio.Task[StreamView]], seconds: float) -> None:
    """Raises what an ingest raises meanwhile."""
    done, _ = await asyncio.wait(ingests, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for ingest in done:
        ingest.result()
