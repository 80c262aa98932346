"""One file after the other into streams, several at once, through one pool that encodes them together.

pending -> running -> fetch, hash -> open -> whose content? -> decode, pool -> done
              ^            |           |           └ another's: skipped
              |            |           └ no video: failed
              └─ wait <────┴ may pass: tried again a few times, then failed until the next run
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.fetching import fetched
from cacheflow_ray.archive.meter import Counts, Meter
from cacheflow_ray.archive.records import FileRecord, FileState
from cacheflow_ray.config import IndexOptions, StreamSettings
from cacheflow_ray.engine.creating import WantedStream, ensure_stream, look
from cacheflow_ray.engine.feeding import feed
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.pool import EncoderPool
from cacheflow_ray.engine.position import End, Position
from cacheflow_ray.engine.scope import START
from cacheflow_ray.errors import (
    CacheFlowError,
    ClusterUnavailable,
    EncoderLost,
    UsageError,
)
from cacheflow_ray.media import Frame, FrameSource, open_source, prefetch
from memory_store.errors import EpochFenced, QuotaExceeded, StoreError, StoreFull, StoreUnavailable
from memory_store.records import Retention

_LOG = logging.getLogger(__name__)

#: Frames of a push, and pushes on their way before another: the pool encodes while as much again is decoded.
_AT_ONCE, _UNDER_WAY = 8, 2
#: What may be otherwise the next time. A file's own faults stay.
_PASSING = (ClusterUnavailable, EncoderLost, EpochFenced, StoreFull, StoreUnavailable, QuotaExceeded, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How files become streams.

    Args:
        settings: what is not set in it is as the model recommends.
        retention: what is kept of each; None: all.
        tenant: whose streams they are.
    """

    settings: StreamSettings | None = None
    retention: Retention | None = None
    tenant: str = ""
    options: IndexOptions = field(default_factory=IndexOptions)


class _Stopped(Exception):
    """Nobody wants it any more."""


class FileIndexer:
    """Indexes files of one archive; `index` may run in several threads at once.

    Args:
        pool: over the same backend.
        stopped: waits so many seconds, or less where the run is to end; returns whether it is.
    """

    def __init__(
        self,
        backend: Backend,
        pool: EncoderPool,
        books: Books,
        wanted: Wanted,
        meter: Meter,
        stopped: Callable[[float], bool],
    ) -> None:
        self._backend, self._pool, self._books, self._wanted = backend, pool, books, wanted
        self._meter, self._stopped = meter, stopped
        self._cores = threading.Semaphore(os.cpu_count() or 1)

    def index(self, uri: str) -> FileRecord:
        """Take a file as far as it goes; what became of it is in the books.

        Raises:
            LookupError: it is not in the books. StoreError, ClusterUnavailable: the books cannot be kept.
        """
        record = self._books.file(uri)
        if record is None:
            raise LookupError(f"{uri!r} is not in the books")
        options, wait_s = self._wanted.options, self._wanted.options.retry_wait_s
        for left in reversed(range(options.retries + 1)):
            if record.state not in (FileState.PENDING, FileState.RUNNING):
                break
            record = self._tried(record)
            if not (record.state is FileState.FAILED and record.transient and left) or self._stopped(wait_s):
                break
            record, wait_s = replace(record, state=FileState.PENDING), 2 * wait_s
        return record

    def _tried(self, record: FileRecord) -> FileRecord:
        began = perf_counter()
        record = replace(record, state=FileState.RUNNING, attempts=record.attempts + 1, reason="", transient=False)
        self._books.put_files([record])
        try:
            record = self._indexed(record)
        except _Stopped:
            record = replace(record, state=FileState.PENDING)
        except Exception as error:  # one file must not end the others
            record = _failed(record, error)
        record = replace(record, took_s=perf_counter() - began)
        self._books.put_files([record])
        return record

    def _indexed(self, record: FileRecord) -> FileRecord:
        if self._stopped(0.0):
            raise _Stopped
        with fetched(record.uri) as file:
            if record.content and record.content != file.content and record.frames:
                raise UsageError(
                    f"the file has changed since stream {record.stream!r} was made of it: delete the stream to index "
                    "it anew",
                    stream=record.stream,
                )
            return self._encoded(replace(record, content=file.content), file.path)

    def _encoded(self, record: FileRecord, path: Path) -> FileRecord:
        backend, stream, wanted = self._backend, record.stream, self._wanted
        labels: Mapping[str, str] = dict(record.labels) | ({START: record.start} if record.start else {})
        new = WantedStream(stream_id=stream, settings=wanted.settings, labels=labels, tenant=wanted.tenant)
        with open_source(path, fps=look(backend, new).settings.fps) as source:
            owner = self._books.claim_content(record.content, stream)  # only now: what is no video is nobody's
            if owner != stream:
                return replace(record, state=FileState.SKIPPED, reason=f"the same content as stream {owner!r}")
            read_from = record.uri if path == Path(record.uri) or record.uri.startswith("http") else None
            spec = ensure_stream(backend, new, source.info.identity, read_from)
            if wanted.retention is not None:
                backend.store.set_retention(stream, wanted.retention)
            epoch = backend.store.claim(stream)
            position = self._pool.open(stream, epoch)
            if not position.complete:
                rate = spec.fps or source.info.avg_fps or 1.0
                position = self._pushed(source, stream, epoch, position, rate)
            warning = source.report.warning
        stats = backend.store.stats(stream)
        return replace(
            record,
            state=FileState.DONE,
            frames=position.frames,
            tokens_seen=position.tokens_seen,
            tokens_kept=position.tokens_kept,
            blocks=position.blocks,
            video_s=stats.end_s or 0.0,
            warning=warning,
        )

    def _pushed(self, source: FrameSource, stream: str, epoch: int, position: Position, rate: float) -> Position:
        """From the frame the stream lacks first to the last. `rate`: frames taken for each second of video."""
        acked = _Progress(self._meter, position, rate)
        with closing(prefetch(self._decoded(source))) as frames:
            whole = feed(
                self._pool,
                stream,
                epoch,
                (frame for frame in frames if frame.seq >= position.next_seq),
                at_once=_AT_ONCE,
                under_way=_UNDER_WAY,
                wanted=lambda: not self._stopped(0.0),
                acked=acked,
            )
        end = End(final=whole, warning=source.report.warning if whole else None)
        done = self._pool.finish(stream, epoch, end).result()
        if not whole:
            raise _Stopped
        acked(done)
        return done

    def _decoded(self, source: FrameSource) -> Iterator[Frame]:
        """Its frames. No more files are decoded at a time than there are cores: more would only hold encoding up."""
        while True:
            with self._cores:
                began = perf_counter()
                frame = next(source, None)
                self._meter.add(Counts(decode_s=perf_counter() - began))
            if frame is None:
                return
            yield frame


class _Progress:
    """Counts what came between two acks."""

    def __init__(self, meter: Meter, position: Position, rate: float) -> None:
        self._meter, self._last, self._rate = meter, position, rate

    def __call__(self, now: Position) -> None:
        last, self._last = self._last, now
        frames = now.frames - last.frames
        self._meter.add(
            Counts(
                frames=frames,
                tokens_seen=now.tokens_seen - last.tokens_seen,
                tokens_kept=now.tokens_kept - last.tokens_kept,
                video_s=frames / self._rate,
            )
        )


def _failed(record: FileRecord, error: Exception) -> FileRecord:
    """What becomes of a file when this is raised: some things pass, others will be the same the next time."""
    reason = str(error)
    if not isinstance(error, CacheFlowError | StoreError | OSError):
        _LOG.exception("file %s failed for a reason nobody thought of", record.uri)
        reason = f"unexpected {type(error).__name__}: {error}"
    return replace(record, state=FileState.FAILED, reason=reason, transient=isinstance(error, _PASSING))
