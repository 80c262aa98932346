"""What a client pushes, on its way from messages to the session: checked, and gathered into pushes."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from cacheflow_ray.actors.api import FramePayload, IngestSession, PayloadKind
from cacheflow_ray.config import ServiceLimits
from cacheflow_ray.engine.position import Position
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.limits import check
from cacheflow_ray.service.messages import read_frame
from cacheflow_ray.service.pictures import check_picture
from cacheflow_ray.service.v1.ingest_pb2 import IngestRequest

#: A push takes all that waits, up to so much.
BATCH_FRAMES = 16
BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Frames and bytes: of a push, or credits. Of a video file, bytes only."""

    frames: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushing:
    """A push about to start, and how much it takes."""

    call: Coroutine[Any, Any, Position]
    load: Load


class Credits:
    """How much of what was granted is on its way: received, and neither durable nor left out."""

    def __init__(self, granted: Load) -> None:
        self._granted = granted
        self._frames = self._bytes = 0

    def take(self, load: Load) -> None:
        """More is on its way. Raises: LimitExceeded: more than granted."""
        self._frames += load.frames
        self._bytes += load.num_bytes
        check("credit_frames", self._granted.frames, self._frames, "frames on their way: wait for acks")
        check("credit_bytes", self._granted.num_bytes, self._bytes, "bytes on their way: wait for acks")

    def give_back(self, load: Load) -> None:
        """So much has arrived."""
        self._frames -= load.frames
        self._bytes -= load.num_bytes


class Intake(Protocol):
    """Frames, or bytes of a file, that wait to be pushed."""

    def take(self, request: IngestRequest) -> Load:
        """Let it wait. Raises: UsageError, LimitExceeded, UnsupportedMedia: it is not as it has to be."""

    def has_any(self) -> bool:
        """Something waits."""

    def has_batch(self) -> bool:
        """As much waits as a push takes."""

    def next(self, session: IngestSession) -> Pushing:
        """The first push of what waits."""


def intake_of(kind: PayloadKind, limits: ServiceLimits) -> Intake:
    """For what a client said that it sends."""
    return ChunkIntake() if kind is PayloadKind.CONTAINER else FrameIntake(kind, limits)


class FrameIntake:
    """Frames one by one. An equal seq is a repeat, which the session knows; one that goes back is an error."""

    def __init__(self, kind: PayloadKind, limits: ServiceLimits) -> None:
        self._kind, self._limits = kind, limits
        self._waiting: deque[FramePayload] = deque()
        self._num_bytes = self._last_seq = 0

    def take(self, request: IngestRequest) -> Load:
        if request.WhichOneof("message") != "frame":
            raise _unexpected(request, "frame")
        frame = read_frame(request.frame, self._kind)
        if frame.seq < self._last_seq:
            what = f"{frame.seq} comes after {self._last_seq}: send frames in order"
            raise UsageError(f"frame.seq: {what}", field="frame.seq", seq=frame.seq)
        check_picture(frame, self._limits)
        self._last_seq = frame.seq
        self._waiting.append(frame)
        self._num_bytes += len(frame.data)
        return Load(frames=1, num_bytes=len(frame.data))

    def has_any(self) -> bool:
        return bool(self._waiting)

    def has_batch(self) -> bool:
        return len(self._waiting) >= BATCH_FRAMES or self._num_bytes >= BATCH_BYTES

    def next(self, session: IngestSession) -> Pushing:
        batch = [self._waiting.popleft()]
        num_bytes = len(batch[0].data)
        while self._waiting and len(batch) < BATCH_FRAMES and num_bytes + len(self._waiting[0].data) <= BATCH_BYTES:
            batch.append(self._waiting.popleft())
            num_bytes += len(batch[-1].data)
        self._num_bytes -= num_bytes
        return Pushing(call=session.push(batch), load=Load(frames=len(batch), num_bytes=num_bytes))


class ChunkIntake:
    """Pieces of a file as the bytes they are: how it was cut does not matter."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._offset = 0  # in the file, of the first byte that waits

    def take(self, request: IngestRequest) -> Load:
        if request.WhichOneof("message") != "chunk":
            raise _unexpected(request, "chunk")
        chunk, due = request.chunk, self._offset + len(self._waiting)
        if chunk.offset != due:
            what = f"{chunk.offset} follows, and {due} is due: send the file in order, without gaps"
            raise UsageError(f"chunk.offset: {what}", field="chunk.offset")
        if not chunk.data:
            raise UsageError("chunk.data: is empty; send a piece of the file", field="chunk.data")
        self._waiting += chunk.data
        return Load(num_bytes=len(chunk.data))

    def has_any(self) -> bool:
        return bool(self._waiting)

    def has_batch(self) -> bool:
        return len(self._waiting) >= BATCH_BYTES

    def next(self, session: IngestSession) -> Pushing:
        data = bytes(self._waiting[:BATCH_BYTES])
        del self._waiting[: len(data)]
        offset, self._offset = self._offset, self._offset + len(data)
        return Pushing(call=session.push_chunk(offset, data), load=Load(num_bytes=len(data)))


def _unexpected(request: IngestRequest, due: str) -> UsageError:
    found = request.WhichOneof("message") or "nothing"
    return UsageError(f"message: {found} where {due} or finish is due: `start` said what is sent", field="message")
