"""A stream open at its encoder, as whoever pushes it holds it."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cacheflow_ray.actors.api import FramePayload
from cacheflow_ray.actors.errors import asked
from cacheflow_ray.engine.position import Position
from cacheflow_ray.errors import ClusterUnavailable, EncoderLost, UsageError

#: A push waits for those before it, and they for the store.
_PUSH_S = 600.0


class Pushed:
    """See `api.IngestSession`.

    Args:
        actor, encoder: the encoder and its name.
        let_go: told when nobody pushes the stream any more, or that the encoder named does not answer.
    """

    position: Position
    credit_frames: int
    credit_bytes: int

    def __init__(
        self,
        actor: Any,
        encoder: str,
        stream_id: str,
        epoch: int,
        let_go: Callable[[str, str | None], Awaitable[None]],
    ) -> None:
        self._actor, self._encoder, self._let_go = actor, encoder, let_go
        self._stream_id, self._epoch = stream_id, epoch
        self._number = itertools.count()
        self._closed = False

    async def push(self, frames: Sequence[FramePayload]) -> Position:
        return await self._call("push", list(frames))

    async def push_chunk(self, offset: int, data: bytes) -> Position:
        return await self._call("push_chunk", offset, data)

    async def finish(self) -> Position:
        if self._closed:
            raise UsageError(f"stream {self._stream_id!r} was finished: nothing can follow")
        if self.position.complete:
            return self.position
        return await self._end(final=True)

    async def close(self) -> None:
        if not self._closed and not self.position.complete:  # the encoder holds nothing of a stream that is complete
            await self._end(final=False)

    async def _end(self, *, final: bool) -> Position:
        self._closed = True
        position = await self._call("finish", final=final)
        await self._let_go(self._stream_id, None)
        return position

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Position:
        call = getattr(self._actor, name)
        try:
            reference = call.remote(self._stream_id, self._epoch, next(self._number), *args, **kwargs)
            position: Position = await asked(reference, self._encoder, _PUSH_S)
        except ClusterUnavailable as error:
            if error.ids.get("actor") != self._encoder:
                raise
            await self._let_go(self._stream_id, self._encoder)
            raise EncoderLost(f"{self._encoder} went away: open the stream anew", actor=self._encoder) from error
        return position
