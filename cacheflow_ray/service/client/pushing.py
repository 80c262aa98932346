"""One ingest over as many connections as it takes.

connect -> start -> started -> | feed.next() -> frame, frame, ... -> finish |   one task sends
   ^                           | ack, ack, ...  -> feed.acked()  -> finished |   one task receives
   └────── pause ── lost ──────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from google.protobuf.message import Message
from grpc import aio

from cacheflow_ray.errors import ClusterUnavailable
from cacheflow_ray.service.client.channel import Connection, may_be_back
from cacheflow_ray.service.client.ended import Ending
from cacheflow_ray.service.client.feeds import Feed
from cacheflow_ray.service.client.methods import INGEST
from cacheflow_ray.service.client.retry import Patience
from cacheflow_ray.service.messages import Granted, read_ack, read_started
from cacheflow_ray.service.status import Expected, retry_after_s
from cacheflow_ray.service.v1.ingest_pb2 import IngestFinish, IngestRequest, IngestResponse, IngestStart
from cacheflow_ray.service.v1.stream_pb2 import Stream

Call: TypeAlias = "aio.StreamStreamCall[Message, IngestResponse]"

#: The server ends a call it is done with; longer than this is not waited for it.
_ENDING_S = 2.0


class Pushing:
    """Sends a feed to its end, on one connection after the other.

    Attributes:
        shed: frames left out by the overload policy.

    Args:
        start: the first message of each.
        finish: asked once all is sent: whether to end the stream for good, or to leave it open once all is durable.
        patience_s: how long it is tried again while nothing becomes durable.
        watch: called with every ack.
    """

    def __init__(
        self,
        connection: Connection,
        start: IngestStart,
        feed: Feed,
        *,
        finish: Callable[[], bool],
        patience_s: float,
        watch: Callable[[Granted], None],
    ) -> None:
        self._connection, self._feed, self._watch = connection, feed, watch
        self._start, self._finish = IngestRequest(start=start), finish
        self._patience = Patience(patience_s)
        self.shed = 0

    async def run(self) -> Stream | None:
        """The stream as it was finished; None: it is left open, or was complete before.

        Raises:
            what the service raised, or the source did. ClusterUnavailable: patience ended.
        """
        stub = self._connection.channel.stream_stream(
            INGEST.path,
            request_serializer=IngestRequest.SerializeToString,
            response_deserializer=IngestResponse.FromString,
        )
        while True:
            attempt = _Attempt(stub(metadata=self._connection.metadata), self._feed, self._watch, self._finish)
            try:
                return await attempt.run(self._start)
            except _Lost as lost:
                # Frames that end every encoder they reach must not be sent for ever: only progress renews patience.
                if attempt.acked or (attempt.opened.is_set() and self._feed.is_idle):
                    self._patience.renew()
                cause = lost.cause
            finally:
                self.shed += attempt.shed
            error = self._ended_early() if cause is None else self._connection.told(cause)
            if cause is not None and not may_be_back(cause):
                raise error
            await self._patience.pause(error, None if cause is None else retry_after_s(cause))

    def _ended_early(self) -> Expected:
        address = self._connection.address
        return ClusterUnavailable(f"the service at {address} ended an ingest that was not over", address=address)


class _Lost(Exception):
    """The connection ended before its work was done; with the status, unless it ended as if nothing were amiss."""

    def __init__(self, cause: aio.AioRpcError | None) -> None:
        self.cause = cause


class _Attempt:
    """One connection.

    Attributes:
        opened: set once the server said where to begin.
        acked: whether anything was acknowledged on it.
        shed: frames left out by the overload policy.
    """

    def __init__(self, call: Call, feed: Feed, watch: Callable[[Granted], None], finish: Callable[[], bool]) -> None:
        self._call, self._feed, self._watch, self._finish = call, feed, watch, finish
        self._ending = Ending(call)
        self.opened, self.acked, self.shed = asyncio.Event(), False, 0
        self._finished: bool | None = None  # None: there is more to send

    async def run(self, start: IngestRequest) -> Stream | None:
        """As `Pushing.run`. Raises _Lost: connect anew; anything else is for the caller."""
        sender, receiver = asyncio.create_task(self._send(start)), asyncio.create_task(self._receive())
        try:
            await asyncio.wait((sender, receiver), return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
            return await receiver
        finally:
            for task in (sender, receiver):
                task.cancel()
            await asyncio.gather(sender, receiver, return_exceptions=True)
            self._call.cancel()

    async def _send(self, start: IngestRequest) -> None:
        """Ends early when the call has: `_receive` hears why."""
        if not await self._write(start):
            return
        await self.opened.wait()
        while (request := await self._feed.next()) is not None:
            if not await self._write(request):
                return
        self._finished = self._finish()
        if not self._finished:
            await self._feed.settled()
        elif not await self._write(IngestRequest(finish=IngestFinish())):
            return
        await self._half_close()

    async def _write(self, request: IngestRequest) -> bool:
        try:
            await self._call.write(request)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def _receive(self) -> Stream | None:
        while (response := await self._read()) is not None:
            match response.WhichOneof("message"):
                case "started":
                    granted = read_started(response.started)
                    if granted.position.complete:
                        await self._end()
                        return None
                    self._feed.opened(granted)
                    self.opened.set()
                case "ack":
                    granted = read_ack(response.ack)
                    self.acked, self.shed = True, granted.position.shed
                    self._feed.acked(granted)
                    self._watch(granted)
                case "finished":
                    await self._end()
                    return response.finished.stream
        if self._finished is not False:
            raise _Lost(None)
        return None

    async def _end(self) -> None:
        """Let the server end the call: one that is cancelled looks like a failure there."""
        await self._half_close()
        with suppress(_Lost, TimeoutError):
            await asyncio.wait_for(self._read(), _ENDING_S)

    async def _half_close(self) -> None:
        with suppress(aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    async def _read(self) -> IngestResponse | None:
        """None: the server has ended the call. Raises _Lost: with a status that is none of success."""
        try:
            response = await self._call.read()
        except aio.AioRpcError as error:
            raise _Lost(await self._ending.cause(error)) from None
        return response if isinstance(response, IngestResponse) else None
