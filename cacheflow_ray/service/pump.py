"""Between one client and its session: reads, pushes, acknowledges.

    requests --read--> credits --> waiting --push--> session: durable --> ack, credits given back
                       |<----------- on its way: at most what was granted ----------->|

Memory is bounded by the credits, whoever is slow: a client that has used them up waits for acks, and one that does not
is refused. Acks that a client does not read stop the reading of its frames.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from cacheflow_ray.actors.api import IngestSession
from cacheflow_ray.engine.position import Position
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.intake import Credits, Intake, Load
from cacheflow_ray.service.messages import Granted
from cacheflow_ray.service.v1.ingest_pb2 import IngestRequest

#: Pushes under way before frames are gathered; whole batches go at once.
_PUSHES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pushed:
    """A push under way: a call of the session, and the credits it gives back."""

    task: asyncio.Task[Position]
    load: Load


class Pump:
    """One ingest after its start.

    Args:
        closing: when it is done no more is read; what was read is still pushed and acknowledged.
        received: told of what comes in.

    Attributes:
        finished: the client has said that no more is to come, ever.
    """

    def __init__(
        self,
        session: IngestSession,
        intake: Intake,
        *,
        closing: asyncio.Future[None],
        received: Callable[[Load], None],
    ) -> None:
        self._session, self._intake = session, intake
        self._closing, self._received = closing, received
        self._credits = Credits(Load(frames=session.credit_frames, num_bytes=session.credit_bytes))
        self._pushes: deque[_Pushed] = deque()
        self.finished = False

    async def run(self, requests: AsyncIterator[IngestRequest]) -> AsyncGenerator[Granted, None]:
        """An ack for whatever has become durable, until nothing is left to read, to push or to wait for.

        Raises:
            UsageError, LimitExceeded, UnsupportedMedia: what was read is not as it has to be; and what pushes raise.
        """
        reading: asyncio.Task[IngestRequest | None] | None = _read(requests)
        try:
            while reading or self._pushes:
                watched: list[asyncio.Future[Any]] = [reading, self._closing] if reading else []
                watched += [self._pushes[0].task] if self._pushes else []
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                if reading and (reading.done() or self._closing.done()):
                    reading = _read(requests) if self._take(reading) else None
                self._push()
                if self._pushes and self._pushes[0].task.done():
                    yield self._acknowledge()
                    self._push()
        finally:
            await _cancelled([*([reading] if reading else []), *(push.task for push in self._pushes)])

    def _take(self, reading: asyncio.Task[IngestRequest | None]) -> bool:
        """Let what was read wait; False: nothing more is read."""
        if not reading.done():
            reading.cancel()
            return False
        request = reading.result()
        if request is None:
            return False
        if request.WhichOneof("message") == "finish":
            self.finished = True
            return False
        if self._session.position.complete:
            raise UsageError("message: the stream is complete, and takes no more frames", field="message")
        load = self._intake.take(request)
        self._credits.take(load)
        self._received(load)
        return not self._closing.done()

    def _push(self) -> None:
        """Start pushes: of all that waits while few are under way, of whole batches always."""
        while self._intake.has_batch() or (self._intake.has_any() and len(self._pushes) < _PUSHES):
            pushing = self._intake.next(self._session)
            self._pushes.append(_Pushed(task=asyncio.create_task(pushing.call), load=pushing.load))

    def _acknowledge(self) -> Granted:
        push = self._pushes.popleft()
        position = push.task.result()
        self._credits.give_back(push.load)
        return Granted(position=position, credit_frames=push.load.frames, credit_bytes=push.load.num_bytes)


def _read(requests: AsyncIterator[IngestRequest]) -> asyncio.Task[IngestRequest | None]:
    """The next message; None: the client has closed its side."""

    async def read() -> IngestRequest | None:
        return await anext(requests, None)

    return asyncio.create_task(read())


async def _cancelled(tasks: list[asyncio.Future[Any]]) -> None:
    """Stop them, and hear what they raise."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
