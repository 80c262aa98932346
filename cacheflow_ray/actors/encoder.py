"""The actor that turns frames into blocks: one model, one pool, many streams."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import ray

from cacheflow_ray.actors.api import FramePayload, NewStream, PayloadKind
from cacheflow_ray.actors.metrics import EncoderMetrics
from cacheflow_ray.actors.process import resident_bytes
from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.engine.pipe import Pipe
from cacheflow_ray.engine.position import End, Overload, Position
from cacheflow_ray.errors import BrokenMedia, MediaError, UnsupportedMedia, UsageError
from cacheflow_ray.media import MAX_PIXELS, Frame, identity_of, load_image

if TYPE_CHECKING:
    from cacheflow_ray.engine.pulling import Puller

T = TypeVar("T")

Key = tuple[str, int]


class Encoder:
    """Streams are opened, pushed and finished by (stream, epoch); calls of one stream count in the order numbered."""

    def __init__(self, setup: Setup) -> None:
        # Whoever calls an actor imports its class: torch is left to those that compute.
        import torch

        from cacheflow_ray.engine.opened import Backend
        from cacheflow_ray.engine.pool import EncoderPool
        from cacheflow_ray.engine.pulling import Puller
        from cacheflow_ray.models import load_model

        self._setup = setup
        if setup.encoder_options.torch_threads is not None:
            torch.set_num_threads(setup.encoder_options.torch_threads)
        self._store = RemoteStore(setup)
        self._backend = Backend(model=load_model(setup.model, setup.model_options), store=self._store)
        self._metrics = EncoderMetrics()
        self._pool = EncoderPool(
            self._backend, setup.encoder_options, group_of=self._store.place_of, on_step=self._metrics.step
        )
        self._turns: dict[Key, _Turns] = {}
        self._pipes: dict[Key, Pipe] = {}
        self._pullers: dict[str, Puller] = {}
        self._puller = partial(Puller, self._backend, self._pool)

    async def ensure(self, new: NewStream) -> None:
        """Make the stream, or see that the one there is goes with what is wanted."""
        await asyncio.to_thread(self._ensure, new)

    def _ensure(self, new: NewStream) -> None:
        from cacheflow_ray.engine.creating import WantedStream, ensure_stream

        uri = self._checked(new.source_uri)
        wanted = WantedStream(
            stream_id=new.stream_id,
            settings=new.settings,
            source_uri=uri,
            labels=new.labels,
            tenant=new.tenant,
        )
        ensure_stream(self._backend, wanted, "" if uri is None or "://" in uri else identity_of(uri))
        if new.retention is not None:
            self._store.set_retention(new.stream_id, new.retention)

    def _checked(self, uri: str | None) -> str | None:
        """A path must lie below the folder the service was given. Raises: UsageError."""
        if uri is None or "://" in uri:
            return uri
        root = self._setup.source_root
        if root is None or not (root / uri).resolve().is_relative_to(root.resolve()):
            raise UsageError(
                f"the service reads no file {uri!r}: give an address, or serve with --source-root", uri=uri
            )
        return str((root / uri).resolve())

    async def open(self, stream_id: str, epoch: int, kind: PayloadKind, overload: Overload) -> Position:
        """Become the one who pushes the stream."""
        position = await asyncio.to_thread(self._pool.open, stream_id, epoch, overload)
        for key in [key for key in self._turns if key[0] == stream_id and key[1] < epoch]:
            self._forget(key)
        self._turns[stream_id, epoch] = _Turns()
        if kind is PayloadKind.CONTAINER and not position.complete:
            pipe = Pipe(self._setup.encoder_options.queue_bytes, self._setup.max_container_bytes)
            self._pipes[stream_id, epoch] = pipe
            self._pullers[stream_id] = self._puller(stream_id, epoch, pipe)
        return position

    async def push(self, stream_id: str, epoch: int, number: int, frames: Sequence[FramePayload]) -> Position:
        """The `number`th push of a session; returns once its frames are durable or left out."""
        makes = [partial(decoded, frame) for frame in frames]
        future = await self._in_turn((stream_id, epoch), number, lambda: self._pool.push(stream_id, epoch, makes))
        return await asyncio.wrap_future(future)

    async def push_chunk(self, stream_id: str, epoch: int, number: int, offset: int, data: bytes) -> Position:
        """The `number`th piece of a session's file; returns once there is room for more."""
        key = (stream_id, epoch)
        pipe = self._pipes.get(key)
        puller = self._pullers.get(stream_id)
        if pipe is None or puller is None or puller.epoch != epoch:
            raise UsageError(f"stream {stream_id!r} is not pushed as a video file")
        await self._in_turn(key, number, lambda: None)
        await asyncio.to_thread(pipe.put, offset, data)
        if puller.done.done():
            return puller.done.result()
        return self._pool.live()[stream_id][0]

    async def finish(self, stream_id: str, epoch: int, number: int, *, final: bool) -> Position:
        """After everything pushed: end the stream for good, or only the session."""
        key = (stream_id, epoch)
        pipe = self._pipes.get(key)
        try:
            if pipe is not None:
                puller = self._pullers[stream_id]
                await self._in_turn(key, number, pipe.end if final else puller.stop)
                return await asyncio.wrap_future(puller.done)
            end = End(final=final)
            future = await self._in_turn(key, number, lambda: self._pool.finish(stream_id, epoch, end))
            return await asyncio.wrap_future(future)
        finally:
            self._forget(key)

    async def pull(self, stream_id: str, epoch: int, uri: str) -> None:
        """Read the stream from its source from now on."""
        position = await asyncio.to_thread(self._pool.open, stream_id, epoch)
        earlier = self._pullers.pop(stream_id, None)
        if earlier is not None:
            earlier.stop()
        if not position.complete:
            self._pullers[stream_id] = self._puller(stream_id, epoch, uri)

    async def pulled(self) -> list[str]:
        """Streams that are being read from their sources."""
        for name in [name for name, own in self._pullers.items() if own.done.done()]:
            del self._pullers[name]
        return list(self._pullers)

    async def drain(self, timeout_s: float) -> None:
        """Encode and keep what was pushed, and take nothing more."""
        for puller in self._pullers.values():
            puller.stop()
        await asyncio.to_thread(self._pool.close, timeout_s)

    async def status(self) -> tuple[int, int, str, str, dict[str, tuple[Position, int]]]:
        """Process, resident bytes, node, metrics as Prometheus text, and the open streams."""
        live = self._pool.live()
        node = ray.get_runtime_context().get_node_id()
        return os.getpid(), resident_bytes(), node, self._metrics.text(live), live

    async def _in_turn(self, key: Key, number: int, act: Callable[[], T]) -> T:
        turns = self._turns.get(key)
        if turns is None:
            return act()  # the pool says what is the matter
        return await turns.take(number, act)

    def _forget(self, key: Key) -> None:
        self._turns.pop(key, None)
        pipe = self._pipes.pop(key, None)
        if pipe is not None:
            pipe.abandon()
        puller = self._pullers.get(key[0])
        if puller is not None and puller.epoch == key[1]:
            with suppress(KeyError):
                del self._pullers[key[0]]


class _Turns:
    """Calls of one session take effect in the order they were numbered, in whatever order they come."""

    def __init__(self) -> None:
        self._next = 0
        self._changed = asyncio.Condition()

    async def take(self, number: int, act: Callable[[], T]) -> T:
        async with self._changed:
            await self._changed.wait_for(lambda: self._next >= number)
            try:
                return act()
            finally:
                self._next = max(self._next, number + 1)
                self._changed.notify_all()


def decoded(payload: FramePayload) -> Frame:
    """The frame of an encoded image, or of raw RGB.

    Raises:
        BrokenMedia, UnsupportedMedia: naming its seq.
    """
    try:
        if payload.width:
            shape = (payload.height, payload.width, 3)
            image = np.frombuffer(payload.data, np.uint8).reshape(shape)
        else:
            image = load_image(io.BytesIO(payload.data), max_pixels=MAX_PIXELS)
        return Frame(seq=payload.seq, timestamp_s=payload.timestamp_s, image=image)
    except ValueError as error:
        raise UnsupportedMedia(
            f"frame {payload.seq}: {len(payload.data)} bytes are not {payload.width} x {payload.height} pixels of RGB",
            seq=payload.seq,
        ) from error
    except MediaError as error:
        kind = BrokenMedia if isinstance(error, BrokenMedia) else UnsupportedMedia
        raise kind(f"frame {payload.seq}: {error}", **error.ids | {"seq": payload.seq}) from error
