"""What the service asks of the cluster, in the engine's own terms: `Cluster` keeps it with Ray actors behind it.

A stream's id is its name, or `tenant:name` where the service has tenants. Errors are those of `cacheflow_ray.errors`
and `memory_store.errors`; `actors.errors` gives back what Ray wrapped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from cacheflow_ray.actors.index_api import IndexPort
from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.engine.reports import AnswerResult, Evidence, StreamInfo
from cacheflow_ray.engine.scope import LibraryScope
from memory_store.records import Retention


class PayloadKind(StrEnum):
    """What an ingest session is pushed as."""

    IMAGE = "image"
    RGB = "rgb"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStream:
    """A stream to be made, or gone on with.

    Args:
        settings: what is not set in it is as the stream was made, or as the model recommends.
        labels: of a new stream.
        source_uri: what an encoder reads it from for as long as it lives; None: it is pushed.
        retention: None: all is kept.
    """

    stream_id: str
    tenant: str = ""
    settings: StreamSettings | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    source_uri: str | None = None
    retention: Retention | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePayload:
    """One frame as a client sent it: an encoded image, or raw RGB of `width` x `height` pixels."""

    seq: int
    timestamp_s: float
    data: bytes
    width: int = 0
    height: int = 0


class IngestSession(Protocol):
    """One client's hold on a stream. A newer session on the same stream ends it: its calls raise `EpochFenced`.

    Attributes:
        position: when it was opened.
        credit_frames, credit_bytes: how much may be pushed and not durable.
    """

    position: Position
    credit_frames: int
    credit_bytes: int

    async def push(self, frames: Sequence[FramePayload]) -> Position:
        """Take frames; returns once they are durable (or left out). Several may be under way; they count in order.

        Raises:
            UnsupportedMedia, BrokenMedia: a picture that is none, naming its seq. EpochFenced, StoreFull,
            QuotaExceeded, InvalidFeatures; EncoderLost: its process died: open the stream anew.
        """

    async def push_chunk(self, offset: int, data: bytes) -> Position:
        """Take a piece of a video file; returns once there is room for as much again. Raises as `push`."""

    async def finish(self) -> Position:
        """No more is to come; returns once all is durable. Raises as `push`."""

    async def close(self) -> None:
        """Give the stream up; what was pushed is encoded and kept. Closing again does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCall:
    """A question on its way.

    Args:
        streams: asked about; of several, the one with the best evidence answers, and `session_id` must be None.
        library: asked about instead of `streams`, which are none then; also without a session.
        options: time range, session and the rest; what is not set is as the model recommends.
        after_seq: wait until every frame before it is durable.
        deadline_s: Unix time by which the caller stops waiting; None: it waits.
        thumbnails: read a picture for each piece of evidence.
    """

    streams: tuple[str, ...]
    question: str
    options: AskOptions
    library: LibraryScope | None = None
    after_seq: int | None = None
    deadline_s: float | None = None
    thumbnails: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCall:
    """A search on its way.

    Args:
        streams, library: searched, one or the other.
        options: how many moments (`top_k`), and the time range.
        thumbnails: read a picture for each moment.
    """

    streams: tuple[str, ...]
    text: str
    options: AskOptions
    library: LibraryScope | None = None
    thumbnails: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A piece of evidence, the stream it is of, and a JPEG of it (b"" where none was asked for)."""

    stream_id: str
    evidence: Evidence
    thumbnail: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found, best first; `warnings`: what was left out, and why."""

    moments: tuple[Moment, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The last thing of an answer: all but its text in pieces."""

    stream_id: str
    result: AnswerResult
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStream:
    """A stream being ingested now."""

    stream_id: str
    encoder: str
    position: Position
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorStatus:
    """One actor.

    Args:
        role: encoder, store, answerer, gateway or director.
        alive: it answered in time.
        exposition: its metrics as Prometheus text, without labels that tell the actor.
    """

    name: str
    role: str
    alive: bool
    pid: int = 0
    resident_bytes: int = 0
    node: str = ""
    exposition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """Every actor, and every stream being ingested."""

    actors: tuple[ActorStatus, ...]
    streams: tuple[LiveStream, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamView:
    """A stream, and how much of it is kept."""

    info: StreamInfo
    position: Position
    tenant: str
    retention: Retention | None = None
    source_uri: str | None = None


class ClusterPort(Protocol):
    """All the service asks for. Every call may raise `ClusterUnavailable`: an actor or its node is away for now."""

    @property
    def index(self) -> IndexPort:
        """Jobs that index libraries of files."""

    async def create_stream(self, new: NewStream) -> StreamView:
        """Raises: StreamExists, SettingsMismatch, InvalidConfig, InvalidRecord, SourceNotFound."""

    async def get_stream(self, stream_id: str) -> StreamView:
        """Raises: StreamNotFound."""

    async def list_streams(self, prefix: str, after: str, limit: int) -> list[StreamView]:
        """Streams whose id begins with `prefix` and comes after `after`, by id; those of stores that are away, not."""

    async def update_stream(
        self, stream_id: str, *, labels: Mapping[str, str] | None, retention: Retention | None
    ) -> StreamView:
        """Put new labels and a new retention, None: as they are (`Retention()` keeps all). Raises: StreamNotFound."""

    async def delete_stream(self, stream_id: str) -> None:
        """Raises: StreamNotFound."""

    async def open_ingest(self, new: NewStream, kind: PayloadKind, overload: Overload) -> IngestSession:
        """Make the stream if there is none, and become the one who pushes it. Raises: as `create_stream`."""

    def ask(self, call: AskCall) -> AsyncIterator[str | Answered]:
        """Pieces of text, then one `Answered`. Closing the iterator stops generating within a token.

        Raises:
            as `engine.VideoMemory.ask`; DeadlinePassed.
        """

    async def search(self, call: SearchCall) -> Found:
        """Moments of one stream, or of many ranked as one, best first, up to `options.top_k` of them.

        Raises:
            as `engine.VideoMemory.search` and `search_library`.
        """

    async def status(self) -> ClusterStatus:
        """What runs."""

    async def scale(self, *, encoders: int | None, answerers: int | None) -> tuple[int, int]:
        """Change how many there are; returns encoders and answerers. Streams of those that go move on."""
