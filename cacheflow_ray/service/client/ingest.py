"""Everything of one ingest: the stream, what is sent of the source, and how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from cacheflow_ray.actors.api import NewStream, PayloadKind, StreamView
from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.position import Overload
from cacheflow_ray.engine.reports import IngestProgress
from cacheflow_ray.errors import InvalidConfig, SourceNotFound, UsageError
from cacheflow_ray.service.client.feeds import Feed, FileFeed, FrameFeed
from cacheflow_ray.service.client.sources import Frames, Payloads, Source, is_file, payload_of
from cacheflow_ray.service.messages import Granted, Start, write_start
from cacheflow_ray.service.v1.ingest_pb2 import IngestStart

if TYPE_CHECKING:
    from cacheflow_ray.media import Frame, FrameSource, SourceInfo

Watcher: TypeAlias = Callable[[IngestProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How a source is pushed.

    Args:
        settings: what is not set in it is as the stream was made, or as the model recommends where it is new.
        labels: of a new stream.
        payload: IMAGE sends each frame as a JPEG of this `quality` (1 to 100), or as it is where it is an encoded image
            already; RGB sends its exact pixels; CONTAINER sends a video file as it is, for the server to sample.
        overload: what happens to frames that come faster than they can be encoded.
        finish: end the stream for good; else it is left open. A camera's, or a download's that broke off, is left open
            in any case.
        patience_s: how long the service may be away, or bring nothing further, before this gives up.

    Raises:
        InvalidConfig: a quality or patience out of range.
    """

    settings: StreamSettings | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    payload: PayloadKind = PayloadKind.IMAGE
    quality: int = 95
    overload: Overload = Overload.BLOCK
    finish: bool = True
    patience_s: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise InvalidConfig(f"quality: {self.quality} is not allowed; allowed: 1 to 100", key="quality")
        if not self.patience_s >= 0:
            raise InvalidConfig(f"patience_s: {self.patience_s} is not allowed; allowed: 0 or more", key="patience_s")

    def stream(self, name: str) -> NewStream:
        """The stream it is pushed to."""
        return NewStream(stream_id=name, settings=self.settings, labels=self.labels)

    def start(self, name: str) -> IngestStart:
        """What every connection begins with."""
        return write_start(Start(new=self.stream(name), kind=self.payload, overload=self.overload))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A source that is ready to be sent. `video`: where it is sampled here."""

    feed: Feed
    video: FrameSource | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing is to come once it is sent: a camera may go on, a download that broke off be tried again."""
        video = self.video
        return video is None or not (video.info.is_live or (video.info.is_address and video.report.reason))

    @property
    def warning(self) -> str | None:
        return None if self.video is None else self.video.report.warning


async def check(source: Source, options: IngestOptions) -> None:
    """See that there is such a file or folder. Addresses and pipes are not tried: they may not give the same twice.

    Raises: as `opened`.
    """
    if options.payload is PayloadKind.CONTAINER:
        with _open_file(source):
            return
    if isinstance(source, str | Path) and "://" not in str(source):
        path = Path(source)
        if path.is_file() or path.is_dir() or not path.exists():
            await asyncio.to_thread(lambda: _open_video(path, 1.0).close())


@asynccontextmanager
async def opened(source: Source, made: StreamView, options: IngestOptions) -> AsyncIterator[Opened]:
    """The source, as the options send it to the stream that was made; closed at the end.

    Raises:
        SourceNotFound, UnsupportedMedia, BrokenMedia: it cannot be opened. UsageError: no file, and sent as one.
    """
    encode = partial(payload_of, kind=options.payload, quality=options.quality)
    video, stack = None, ExitStack()
    try:
        if options.payload is PayloadKind.CONTAINER:
            feed: Feed = FileFeed(stack.enter_context(_open_file(source)))
        elif is_file(source):
            video = await asyncio.to_thread(_open_video, source, _fps(made))
            stack.callback(video.close)
            frames = _ahead(video, made)
            stack.callback(frames.close)
            feed = FrameFeed(made.info.stream, Payloads(frames, encode))
        else:
            feed = FrameFeed(made.info.stream, Payloads(cast(Frames, source), encode))
        try:
            yield Opened(feed=feed, video=video)
        finally:
            await feed.close()
    finally:
        await asyncio.to_thread(stack.close)  # a camera's decoder ends with its next picture


@contextmanager
def _open_file(source: Source) -> Iterator[BinaryIO]:
    """A file object stays the caller's to close."""
    if isinstance(source, str | Path):
        with _file_at(source) as file:
            yield file
    else:
        given = cast(BinaryIO, source)
        if not is_file(source) or not given.seekable():
            raise UsageError("only a file can be sent as it is: give a path, or an open file that can be read again")
        yield given


def _file_at(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise SourceNotFound(f"{str(path)!r} cannot be read ({error}): check the path", uri=str(path)) from None


def _open_video(source: str | Path | BinaryIO, fps: float | None) -> FrameSource:
    from cacheflow_ray.media import open_source

    return open_source(source, fps=fps)


def _ahead(video: FrameSource, made: StreamView) -> Generator[Frame, None, None]:
    """Its frames, decoded ahead. A camera has no past: its frames follow those the stream has, in number and time."""
    from cacheflow_ray.media import prefetch

    seq = made.position.next_seq
    if not video.info.is_live or not seq:
        return prefetch(video)
    period_s = 1 / (_fps(made) or video.info.avg_fps or 1.0)
    after_s = max((made.info.end_s or 0.0) + period_s, seq * period_s)
    return prefetch(replace(frame, seq=frame.seq + seq, timestamp_s=frame.timestamp_s + after_s) for frame in video)


def _fps(made: StreamView) -> float | None:
    fps = made.info.settings.get("fps")
    return float(fps) if isinstance(fps, int | float) else None


class Progress:
    """What a watcher is told at every ack."""

    def __init__(self, made: StreamView, ready: Opened, watch: Watcher | None) -> None:
        self._stream, self._fps, self._feed, self._watch = made.info.stream, _fps(made), ready.feed, watch
        self._video = ready.video.info if ready.video else None
        self._total_frames = _expected_frames(self._video, self._fps) if self._video else None
        self._started_s = perf_counter()

    def __call__(self, granted: Granted) -> None:
        if self._watch is None:
            return
        now, position_s = granted.position, self._feed.position_s
        self._watch(
            IngestProgress(
                stream=self._stream,
                frames=now.frames,
                total_frames=self._total_frames,
                tokens_seen=now.tokens_seen,
                tokens_kept=now.tokens_kept,
                blocks=now.blocks,
                elapsed_s=perf_counter() - self._started_s,
                position_s=position_s if position_s is not None else now.frames / (self._fps or 1.0),
                duration_s=self._video.duration_s if self._video else None,
            )
        )


def _expected_frames(video: SourceInfo, fps: float | None) -> int | None:
    by_time = round(video.duration_s * fps) if video.duration_s is not None and fps is not None else None
    known = [count for count in (by_time, video.num_frames) if count is not None]
    return max(1, min(known)) if known else None
