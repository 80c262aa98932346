"""The push of a stream: how it starts, frames, and how far it has come."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cacheflow_ray.actors.api import FramePayload, NewStream, PayloadKind
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.messages.fields import read_enum, read_labels, write_enum
from cacheflow_ray.service.messages.settings import read_settings, write_settings
from cacheflow_ray.service.messages.streams import read_totals, write_totals
from cacheflow_ray.service.tenants import bare, qualified
from cacheflow_ray.service.v1 import ingest_pb2

_Start = ingest_pb2.IngestStart

_PAYLOADS = {
    _Start.PAYLOAD_IMAGE: PayloadKind.IMAGE,
    _Start.PAYLOAD_RGB: PayloadKind.RGB,
    _Start.PAYLOAD_CONTAINER: PayloadKind.CONTAINER,
}
_OVERLOADS = {
    _Start.OVERLOAD_BLOCK: Overload.BLOCK,
    _Start.OVERLOAD_DROP_OLDEST: Overload.DROP_OLDEST,
    _Start.OVERLOAD_LOWER_FPS: Overload.LOWER_FPS,
}

#: Frames are counted in 63 bits inside.
_MAX_SEQ = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Whose stream is pushed, and how: what `ClusterPort.open_ingest` takes."""

    new: NewStream
    kind: PayloadKind = PayloadKind.IMAGE
    overload: Overload = Overload.BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """How far the stream is, and credits: all of them at the start, those given back by an ack."""

    position: Position
    credit_frames: int
    credit_bytes: int


def read_start(message: ingest_pb2.IngestStart, tenant: str = "") -> Start:
    """Raises: UsageError, InvalidConfig: naming the field."""
    new = NewStream(
        stream_id=qualified(tenant, message.stream, field="stream"),
        tenant=tenant,
        settings=read_settings(message.settings) if message.HasField("settings") else None,
        labels=read_labels(message.labels),
    )
    return Start(
        new=new,
        kind=read_enum(_PAYLOADS, message.payload, "payload") or PayloadKind.IMAGE,
        overload=read_enum(_OVERLOADS, message.overload, "overload") or Overload.BLOCK,
    )


def write_start(start: Start) -> ingest_pb2.IngestStart:
    """Of the new stream, source and retention are not sent: what is pushed has no source."""
    return ingest_pb2.IngestStart(
        stream=bare(start.new.tenant, start.new.stream_id),
        settings=None if start.new.settings is None else write_settings(start.new.settings),
        labels=start.new.labels,
        payload=write_enum(_PAYLOADS, start.kind),
        overload=write_enum(_OVERLOADS, start.overload),
    )


def read_frame(message: ingest_pb2.Frame, kind: PayloadKind) -> FramePayload:
    """A frame whose picture has not been looked at, but for the size of raw RGB.

    Raises:
        UsageError: naming the field and the frame.
    """
    if message.seq > _MAX_SEQ:
        raise _refused(message, "frame.seq", f"{message.seq} is not allowed; allowed: 0 to {_MAX_SEQ}")
    if not 0 <= message.timestamp_s < math.inf:
        raise _refused(
            message, "frame.timestamp_s", f"{message.timestamp_s} is not allowed; allowed: seconds from 0 on"
        )
    if not message.data:
        raise _refused(message, "frame.data", "is empty; send the picture")
    raw = kind is PayloadKind.RGB
    width, height = (message.width, message.height) if raw else (0, 0)
    if raw and 3 * width * height != len(message.data):
        what = f"{len(message.data)} bytes are no RGB of {width}x{height} pixels; send 3 bytes a pixel, without padding"
        raise _refused(message, "frame.data", what)
    return FramePayload(seq=message.seq, timestamp_s=message.timestamp_s, data=message.data, width=width, height=height)


def _refused(message: ingest_pb2.Frame, field: str, what: str) -> UsageError:
    return UsageError(f"{field}: {what} (frame {message.seq})", field=field, seq=message.seq)


def write_frame(frame: FramePayload) -> ingest_pb2.Frame:
    """As a client sends it."""
    return ingest_pb2.Frame(
        seq=frame.seq, timestamp_s=frame.timestamp_s, data=frame.data, width=frame.width, height=frame.height
    )


def read_started(message: ingest_pb2.IngestStarted) -> Granted:
    """The position holds no more than where to go on, and whether all is in."""
    return Granted(
        position=Position(next_seq=message.resume_from_seq, complete=message.complete),
        credit_frames=message.credit_frames,
        credit_bytes=message.credit_bytes,
    )


def write_started(granted: Granted) -> ingest_pb2.IngestStarted:
    """The first answer."""
    return ingest_pb2.IngestStarted(
        resume_from_seq=granted.position.next_seq,
        credit_frames=granted.credit_frames,
        credit_bytes=granted.credit_bytes,
        complete=granted.position.complete,
    )


def read_ack(message: ingest_pb2.IngestAck) -> Granted:
    """What is durable, and credits given back."""
    return Granted(
        position=read_totals(message.totals, shed=message.shed_frames),
        credit_frames=message.credit_frames,
        credit_bytes=message.credit_bytes,
    )


def write_ack(granted: Granted) -> ingest_pb2.IngestAck:
    """Whenever more is durable."""
    return ingest_pb2.IngestAck(
        next_seq=granted.position.next_seq,
        credit_frames=granted.credit_frames,
        credit_bytes=granted.credit_bytes,
        totals=write_totals(granted.position),
        shed_frames=granted.position.shed,
    )
