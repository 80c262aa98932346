"""Sources into memory: decode ahead, encode many streams per step, commit as blocks come, resume where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import BinaryIO

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.batch import StageTimes, commit, encode_frames
from cacheflow_ray.engine.creating import WantedStream, look
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.reports import IngestProgress, IngestReport
from cacheflow_ray.engine.resuming import frames_after, is_complete
from cacheflow_ray.engine.sources import address_of
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.stream import StreamEncoder
from cacheflow_ray.media import Frame, FrameSource, open_source, prefetch
from cacheflow_ray.models.family import VISION_BATCH
from memory_store.records import Retention, StreamRecord

Source = str | Path | BinaryIO
Watcher = Callable[[IngestProgress], None]

#: Longest a step waits for frames, and about what a crash may cost in seconds of work beside the step under way.
COMMIT_INTERVAL_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestJob:
    """One source for one stream.

    Args:
        source: file, folder of images, address, or open binary file.
        stream: its name.
        settings: what is not set in it is as the stream was made, or as the model recommends where the stream is new.
        labels: kept with a new stream.
        retention: what is kept of the stream from now on; None: what was said before, or all.
    """

    source: Source
    stream: str
    settings: StreamSettings | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    retention: Retention | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """A job that can be done. `record`: of a stream that is to be created; None where there is one already."""

    job: IngestJob
    source: FrameSource
    spec: StreamSpec
    record: StreamRecord | None


@dataclass(slots=True, eq=False)
class _Feed:
    """A job under way."""

    job: IngestJob
    source: FrameSource
    frames: Iterator[Frame]
    encoder: StreamEncoder
    started: float
    first_seq: int
    ended: bool = False


def ingest_all(backend: Backend, jobs: Sequence[IngestJob], watch: Watcher | None = None) -> list[IngestReport]:
    """Ingest sources into their streams, all at once, to the end of each.

    Interrupted (an exception, Ctrl-C, a kill), it goes on from the last commit when called again; called again on what
    is complete, it changes nothing.

    Raises:
        MediaError: a source of which nothing can be decoded.
        SettingsMismatch, FingerprintMismatch: an existing stream was made otherwise.
        InvalidFeatures, StoreError.
    """
    times, reports = StageTimes(), dict[str, IngestReport]()
    with ExitStack() as stack:
        # All are opened before anything is written: one bad source among several leaves no streams behind.
        opened = [_open(backend, job, stack) for job in jobs]
        feeds: list[_Feed] = []
        for feed in [_start(backend, each, stack) for each in opened]:
            if feed.encoder.state.complete:
                reports[feed.job.stream] = _report(backend, feed, times, already=True)
            else:
                feeds.append(feed)
        _run(backend, feeds, times, watch)
        reports |= {feed.job.stream: _report(backend, feed, times) for feed in feeds}
    return [reports[job.stream] for job in jobs]


def _open(backend: Backend, job: IngestJob, stack: ExitStack) -> _Opened:
    """Open a job's source and see that it goes with its stream; nothing is written."""
    looked = look(backend, WantedStream(stream_id=job.stream, settings=job.settings, labels=job.labels))
    source = stack.enter_context(open_source(job.source, fps=looked.settings.fps))
    spec = looked.spec(backend.model, source.info.identity)
    read_from = address_of(job.source, source.info)
    record = looked.record(backend.model, spec, read_from) if looked.stored is None else None
    return _Opened(job=job, source=source, spec=spec, record=record)


def _start(backend: Backend, opened: _Opened, stack: ExitStack) -> _Feed:
    if opened.record is not None:
        backend.store.create_stream(opened.record)
    if opened.job.retention is not None:
        backend.store.set_retention(opened.job.stream, opened.job.retention)
    encoder = StreamEncoder(backend, opened.job.stream, opened.spec)
    frames = prefetch(frames_after(opened.source, opened.spec, encoder.state))
    stack.callback(frames.close)
    return _Feed(
        job=opened.job, source=opened.source, frames=frames, encoder=encoder, started=perf_counter(),
        first_seq=encoder.state.next_seq,
    )  # fmt: skip


def _run(backend: Backend, feeds: Sequence[_Feed], times: StageTimes, watch: Watcher | None) -> None:
    # One vision batch of each stream, however fast the machine: steps composed alike give the same KV to the bit.
    committed, share = perf_counter(), VISION_BATCH * backend.model.vision.frames_per_unit
    while running := [feed for feed in feeds if not feed.ended]:
        with times.stage("decode"):
            taken = {feed: _take(feed, share) for feed in running}
        encode_frames(backend.model, {feed.encoder: frames for feed, frames in taken.items()}, times)
        ended = [feed for feed in running if feed.ended]
        encode_frames(backend.model, {feed.encoder: () for feed in ended}, times, last=True)
        for feed in ended:
            feed.encoder.finish(feed.source.report.warning, complete=is_complete(feed.source))
        if ended or any(feed.encoder.has_blocks for feed in running) or perf_counter() - committed > COMMIT_INTERVAL_S:
            commit(backend.store, [feed.encoder for feed in running], times)
            committed = perf_counter()
        if watch is not None:
            for feed in running:
                watch(_progress(feed))


def _take(feed: _Feed, share: int) -> list[Frame]:
    """Up to `share` frames; fewer where they come slowly (a camera), or where the source ends."""
    frames: list[Frame] = []
    started = perf_counter()
    for frame in feed.frames:
        frames.append(frame)
        if len(frames) == share or perf_counter() - started > COMMIT_INTERVAL_S:
            return frames
    feed.ended = True
    return frames


def _progress(feed: _Feed) -> IngestProgress:
    state, info = feed.encoder.state, feed.source.info
    return IngestProgress(
        stream=feed.job.stream,
        frames=state.counters.frames,
        total_frames=_expected_frames(feed),
        tokens_seen=state.counters.tokens_seen,
        tokens_kept=state.counters.tokens_kept,
        blocks=feed.encoder.num_blocks,
        elapsed_s=perf_counter() - feed.started,
        position_s=state.last_timestamp_s or 0.0,
        duration_s=info.duration_s,
    )


def _expected_frames(feed: _Feed) -> int | None:
    info, fps = feed.source.info, feed.encoder.spec.fps
    by_time = round(info.duration_s * fps) if fps is not None and info.duration_s is not None else None
    known = [count for count in (by_time, info.num_frames) if count is not None]
    return max(1, min(known)) if known else None


def _report(backend: Backend, feed: _Feed, times: StageTimes, *, already: bool = False) -> IngestReport:
    state, stats = feed.encoder.state, backend.store.stats(feed.job.stream)
    return IngestReport(
        stream=feed.job.stream,
        frames=state.counters.frames,
        tokens_seen=state.counters.tokens_seen,
        tokens_kept=state.counters.tokens_kept,
        blocks=stats.num_blocks,
        num_bytes=stats.num_bytes,
        resumed_from_seq=feed.first_seq,
        already_complete=already,
        warning=state.warning,
        elapsed_s=perf_counter() - feed.started,
        stages_s=dict(times.seconds),
    )
