"""The real gateway over a cluster in memory that dies, dawdles and refuses when it is told to."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from PIL import Image

from cacheflow_ray.actors.api import (
    Answered,
    AskCall,
    ClusterStatus,
    FramePayload,
    IngestSession,
    NewStream,
    PayloadKind,
    StreamView,
)
from cacheflow_ray.config import ServiceOptions
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.service.gateway import Gateway
from tests.service.cluster_double import Kept, MemoryCluster, Session


@dataclass(eq=False)
class MortalCluster(MemoryCluster):
    """What it is made to do may be set at any time.

    Args:
        die_at: the service dies each time so many frames (or pieces of a file) have come, over all connections: these
            break, and what is not durable is gone.
        pace_s: how long it takes to make a frame or a piece durable, or to find a word.
        delay_s: how long it takes to list streams.
        start_errors: raised by the next ingests; late_errors: by the next answers, after their first word;
            lost_answers: by the next deletions, after they are done.
        shed: frames said to be left out, in each session.
        fps: of the streams.
    """

    die_at: deque[int] = field(default_factory=deque)
    pace_s: float = 0.0
    delay_s: float = 0.0
    start_errors: deque[Exception] = field(default_factory=deque)
    late_errors: deque[Exception] = field(default_factory=deque)
    lost_answers: deque[Exception] = field(default_factory=deque)
    shed: int = 0
    fps: float | None = 1.0
    die: Callable[[], object] = lambda: None

    state: ClusterStatus | None = None
    received: int = 0
    most_on_way: int = 0
    num_tries: int = 0
    num_lists: int = 0

    def seqs(self, name: str = "s") -> list[int]:
        """Frames that are durable, in the order they came; nothing where there is no such stream."""
        return [frame.seq for frame in self.streams[name].frames] if name in self.streams else []

    def fail(self) -> None:
        self.num_tries += 1
        super().fail()

    async def create_stream(self, new: NewStream) -> StreamView:
        self.fail()
        return self._view(self.streams.setdefault(new.stream_id, Kept(new)))

    async def get_stream(self, stream_id: str) -> StreamView:
        return self._view(self.find(stream_id))

    def _view(self, kept: Kept) -> StreamView:
        view = kept.view()
        return replace(view, info=replace(view.info, settings={"fps": self.fps, "tau": 0.5}))

    async def list_streams(self, prefix: str, after: str, limit: int) -> list[StreamView]:
        self.num_lists += 1
        await asyncio.sleep(self.delay_s)
        return await super().list_streams(prefix, after, limit)

    async def delete_stream(self, stream_id: str) -> None:
        await super().delete_stream(stream_id)
        if self.lost_answers:
            raise self.lost_answers.popleft()

    async def open_ingest(self, new: NewStream, kind: PayloadKind, overload: Overload) -> IngestSession:
        if self.start_errors:
            raise self.start_errors.popleft()
        session = MortalSession(self, self.streams.setdefault(new.stream_id, Kept(new)), kind, overload)
        self.sessions.append(session)
        return session

    async def ask(self, call: AskCall) -> AsyncIterator[str | Answered]:
        async for piece in super().ask(call):
            yield piece
            await asyncio.sleep(self.pace_s)
            if self.late_errors:
                raise self.late_errors.popleft()

    async def status(self) -> ClusterStatus:
        return self.state or await super().status()


class MortalSession(Session):
    """Pushes become durable one after the other."""

    def __init__(self, cluster: MortalCluster, kept: Kept, kind: PayloadKind, overload: Overload) -> None:
        super().__init__(cluster, kept, kind, overload)
        self._mortal, self._turn, self._on_way = cluster, asyncio.Lock(), 0
        kept.file = b""

    async def push(self, frames: Sequence[FramePayload]) -> Position:
        async with self._taken(len(frames)):
            return replace(await super().push(frames), shed=self._mortal.shed)

    async def push_chunk(self, offset: int, data: bytes) -> Position:
        async with self._taken(1):
            return await super().push_chunk(offset, data)

    @asynccontextmanager
    async def _taken(self, num: int) -> AsyncIterator[None]:
        cluster = self._mortal
        cluster.received += num
        self._on_way += num
        cluster.most_on_way = max(cluster.most_on_way, self._on_way)
        async with self._turn:
            if cluster.die_at and cluster.received >= cluster.die_at[0]:
                cluster.die_at.popleft()
                cluster.die()
                await asyncio.Event().wait()
            await asyncio.sleep(num * cluster.pace_s)
            yield
        self._on_way -= num


class Shot(NamedTuple):
    """A frame of a caller's own."""

    seq: int
    timestamp_s: float
    image: Any


def shots(num: int) -> Iterator[Shot]:
    """Small pictures, each of a colour of its own."""
    return (Shot(seq, float(seq), colour(seq)) for seq in range(num))


def colour(seq: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (seq % 256, seq // 256 % 256, 0)).save(file, "BMP")
    return file.getvalue()


class Running:
    """A gateway at an address that stays while the process behind it comes and goes."""

    def __init__(self, cluster: MortalCluster, **options: Any) -> None:
        self._cluster, self._options, self.port = cluster, options, 0
        self._gateway: Gateway | None = None
        self._dying: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def rise(self) -> None:
        self._gateway = Gateway(self._cluster, ServiceOptions(**{"port": self.port} | self._options))
        self.port = await self._gateway.start()

    async def stop(self) -> None:
        """As if the process were killed: what is under way breaks."""
        if self._dying is not None:
            await self._dying
        if self._gateway is not None:
            await self._gateway.stop()

    def die_and_rise(self) -> None:
        """Returns at once, so that a call of the service itself may ask for it."""

        async def restart() -> None:
            assert self._gateway is not None
            await self._gateway.stop()
            await asyncio.sleep(0.05)
            await self.rise()

        self._dying = asyncio.create_task(restart())


@asynccontextmanager
async def running(cluster: MortalCluster, **options: Any) -> AsyncIterator[Running]:
    """Served in this event loop."""
    made = Running(cluster, **options)
    cluster.die = made.die_and_rise
    await made.rise()
    try:
        yield made
    finally:
        await made.stop()


@contextmanager
def served(cluster: MortalCluster, **options: Any) -> Iterator[str]:
    """Its address, served by an event loop in a thread of its own, for tests that have none."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    serving = Running(cluster, **options)
    cluster.die = serving.die_and_rise
    run(serving.rise())
    try:
        yield serving.address
    finally:
        run(serving.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
