"""A cluster that takes whatever is pushed and keeps nothing: what is before it is measured alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from cacheflow_ray.actors.api import ClusterPort, FramePayload, IngestSession, NewStream, PayloadKind
from cacheflow_ray.actors.pushed import Pushed
from cacheflow_ray.config import ServiceOptions
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.service.gateway import Gateway
from cacheflow_ray.service.v1.ingest_pb2 import IngestResponse

SINK = "sink"

#: Streams of this name go to the actor, all others end in the gateway's process.
FAR = "far"


class SinkActor:
    """Stands where an encoder does."""

    def __init__(self) -> None:
        self._frames = 0

    async def push(self, stream_id: str, epoch: int, number: int, frames: Sequence[FramePayload]) -> Position:
        self._frames += len(frames)
        return Position(next_seq=frames[-1].seq + 1, frames=self._frames)

    async def finish(self, stream_id: str, epoch: int, number: int, *, final: bool) -> Position:
        return Position(next_seq=0, frames=self._frames, complete=final)

    async def drain(self, grace_s: float) -> None:
        """There is nothing to be finished."""


class _Near:
    """An `IngestSession` in the gateway's own process."""

    credit_frames: int
    credit_bytes: int

    def __init__(self) -> None:
        self.position = Position(next_seq=0)

    async def push(self, frames: Sequence[FramePayload]) -> Position:
        self.position = Position(next_seq=frames[-1].seq + 1, frames=self.position.frames + len(frames))
        return self.position

    async def push_chunk(self, offset: int, data: bytes) -> Position:
        return self.position

    async def finish(self) -> Position:
        return self.position

    async def close(self) -> None:
        pass


class _Sinks:
    def __init__(self, actor: Any, window: int) -> None:
        self._actor, self._window = actor, window

    async def open_ingest(self, new: NewStream, kind: PayloadKind, overload: Overload) -> IngestSession:
        session: Any = self._far(new.stream_id) if new.stream_id.startswith(FAR) else _Near()
        session.credit_frames, session.credit_bytes = self._window, 1 << 30
        return cast(IngestSession, session)

    def _far(self, stream_id: str) -> Pushed:
        session = Pushed(self._actor, SINK, stream_id, 0, _let_go)
        session.position = Position(next_seq=0)
        return session


async def _let_go(stream_id: str, lost: str | None) -> None:
    pass


def sink_gateway(_: ClusterPort, *, actor: Any, window: int) -> Gateway:
    """A gateway that grants a window of frames; only ingests are served."""
    return Gateway(cast(ClusterPort, _Sinks(actor, window)), ServiceOptions(port=0))


def granted(answer: bytes) -> int:
    """Frames that an answer of the gateway says have arrived."""
    return IngestResponse.FromString(answer).ack.credit_frames
