"""A cluster without engine, store or Ray: it keeps what it is given in lists, and waits or fails when told to.

The gateway's own tests need to hold a push, an answer or an actor still at a given moment; that the gateway works with
the real cluster, the end-to-end tests show.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cacheflow_ray.actors.api import (
    ActorStatus,
    Answered,
    AskCall,
    ClusterPort,
    ClusterStatus,
    Found,
    FramePayload,
    IngestSession,
    LiveStream,
    Moment,
    NewStream,
    PayloadKind,
    SearchCall,
    StreamView,
)
from cacheflow_ray.actors.index_api import FilePage, IndexView, NewIndex
from cacheflow_ray.archive.records import FileRecord, JobRecord, JobState, JobTotals
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.engine.reports import AnswerResult, Evidence, StreamInfo, Usage
from cacheflow_ray.errors import JobNotFound, NothingToAnswer, UsageError
from memory_store.errors import EpochFenced, StreamExists, StreamNotFound
from memory_store.records import Retention, StreamRecord

MOMENT = Evidence(start_s=1.0, end_s=2.5, block_idxs=(3, 4), score=0.75)
USAGE = Usage(
    context_tokens=10,
    retrieved_blocks=2,
    window_blocks=1,
    tail_tokens=3,
    question_tokens=4,
    generated_tokens=5,
    fetched_bytes=6,
)
EXPOSITION = "# TYPE frames counter\nframes_total 7.0\n# TYPE step_seconds gauge\nstep_seconds 0.5\n"


@dataclass(eq=False)
class Kept:
    """A stream, and what was pushed of it."""

    new: NewStream
    position: Position = field(default_factory=lambda: Position(next_seq=0))
    frames: list[FramePayload] = field(default_factory=list)
    file: bytes = b""
    epoch: int = 0

    def record(self) -> StreamRecord:
        new = self.new
        return StreamRecord(stream_id=new.stream_id, fingerprint="f", labels=new.labels, tenant=new.tenant)

    def view(self) -> StreamView:
        new = self.new
        info = StreamInfo(
            stream=new.stream_id,
            model="bundled:world",
            fingerprint="f" * 16,
            settings={"fps": 1.0, "tau": 0.5},
            labels=dict(new.labels),
            created_s=1.0,
            complete=self.position.complete,
            warning=None,
            frames=self.position.frames,
            tokens_seen=0,
            tokens_kept=0,
            blocks=0,
            tail_tokens=0,
            num_bytes=0,
            start_s=None,
            end_s=None,
            grid=(2, 2),
            frames_per_unit=1,
        )
        return StreamView(
            info=info,
            position=self.position,
            tenant=new.tenant,
            retention=new.retention,
            source_uri=new.source_uri,
        )


class Session:
    """Its pushes wait for the cluster's `gate`."""

    def __init__(self, cluster: MemoryCluster, kept: Kept, kind: PayloadKind, overload: Overload) -> None:
        kept.epoch += 1
        self.kept, self.kind, self.overload, self.epoch = kept, kind, overload, kept.epoch
        self.position = kept.position
        self.credit_frames, self.credit_bytes = cluster.credit_frames, cluster.credit_bytes
        self.pushes: list[int] = []  # frames of each, or bytes
        self.under_way = self.most_under_way = self.num_closed = 0
        self._cluster = cluster

    async def push(self, frames: Sequence[FramePayload]) -> Position:
        self.pushes.append(len(frames))
        await self._arrive()
        kept = self.kept
        kept.frames += [frame for frame in frames if frame.seq >= kept.position.next_seq]
        next_seq = max(kept.position.next_seq, frames[-1].seq + 1)
        kept.position = replace(kept.position, next_seq=next_seq, frames=len(kept.frames))
        return kept.position

    async def push_chunk(self, offset: int, data: bytes) -> Position:
        self.pushes.append(len(data))
        await self._arrive()
        assert offset == len(self.kept.file)
        self.kept.file += data
        return self.kept.position

    async def _arrive(self) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self._cluster.gate.wait()
            self._cluster.fail()
            if self.epoch != self.kept.epoch:
                raise EpochFenced("another took the stream over: open it anew", stream_id=self.kept.new.stream_id)
        finally:
            self.under_way -= 1

    async def finish(self) -> Position:
        self._cluster.fail()
        assert not self.position.complete, "it was over when it was opened"
        self.kept.position = replace(self.kept.position, complete=True)
        return self.kept.position

    async def close(self) -> None:
        self.num_closed += 1


@dataclass(eq=False)
class MemoryIndex:
    """See `IndexPort`: jobs that stay as they are until a test puts another state there.

    Args:
        over: totals with which every job is done as soon as it is started.
    """

    jobs_of: dict[str, dict[str, IndexView]] = field(default_factory=dict)
    records: dict[str, list[FileRecord]] = field(default_factory=dict)
    started: list[NewIndex] = field(default_factory=list)
    over: JobTotals | None = None

    async def start(self, new: NewIndex) -> IndexView:
        self.started.append(new)
        job = JobRecord(id=new.job_id, sources=new.sources, started_s=len(self.started), is_served=True)
        if self.over is not None:
            job = replace(job, state=JobState.DONE, ended_s=job.started_s + 1)
            self.jobs_of.setdefault(new.tenant, {})[new.job_id] = IndexView(job=job, totals=self.over)
        return self.jobs_of.setdefault(new.tenant, {}).setdefault(new.job_id, IndexView(job=job, totals=JobTotals()))

    async def get(self, tenant: str, job_id: str) -> IndexView:
        try:
            return self.jobs_of[tenant][job_id]
        except KeyError:
            raise JobNotFound(f"there is no index job {job_id!r}: see the list", job_id=job_id) from None

    async def jobs(self, tenant: str) -> list[IndexView]:
        return list(self.jobs_of.get(tenant, {}).values())[::-1]

    async def cancel(self, tenant: str, job_id: str) -> None:
        await self.end(tenant, job_id, JobState.CANCELLED)

    async def end(self, tenant: str, job_id: str, state: JobState, error: Exception | None = None) -> None:
        view = await self.get(tenant, job_id)
        job = replace(view.job, state=state, ended_s=9.0)
        self.jobs_of[tenant][job_id] = replace(view, job=job, error=error)

    async def forget(self, tenant: str, job_id: str) -> None:
        if not (await self.get(tenant, job_id)).is_over:
            raise UsageError(f"index job {job_id!r} is under way: cancel it first", job_id=job_id)
        del self.jobs_of[tenant][job_id]

    async def files(self, page: FilePage) -> list[FileRecord]:
        found = [record for record in self.records.get(page.tenant, []) if record.uri > page.after]
        return [record for record in found if page.job_id in (None, record.job) and page.state in (None, record.state)][
            : page.limit
        ]


@dataclass(eq=False)
class MemoryCluster:
    """See `ClusterPort`.

    Args:
        errors: raised by the next calls, one each. gate: while it is not set, pushes and answers wait.
        pieces: of every answer; after them it ends, or, with `endless`, the last is repeated.
        warnings: of every answer and search.
    """

    credit_frames: int = 64
    credit_bytes: int = 32 << 20
    pieces: tuple[str, ...] = ("two ", "red ", "cars")
    endless: bool = False
    warnings: tuple[str, ...] = ()
    errors: deque[Exception] = field(default_factory=deque)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    streams: dict[str, Kept] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    asked: list[AskCall] = field(default_factory=list)
    num_answering: int = 0
    num_pieces: int = 0
    counts: tuple[int, int] = (1, 1)
    index: MemoryIndex = field(default_factory=MemoryIndex)

    def __post_init__(self) -> None:
        self.gate.set()

    def fail(self) -> None:
        if self.errors:
            raise self.errors.popleft()

    def find(self, stream_id: str) -> Kept:
        self.fail()
        if stream_id not in self.streams:
            raise StreamNotFound(f"no stream {stream_id!r}: see the list", stream_id=stream_id)
        return self.streams[stream_id]

    async def create_stream(self, new: NewStream) -> StreamView:
        self.fail()
        kept = self.streams.setdefault(new.stream_id, Kept(new))
        if kept.new.settings != new.settings:
            raise StreamExists(f"stream {new.stream_id!r} is there, made otherwise", stream_id=new.stream_id)
        return kept.view()

    async def get_stream(self, stream_id: str) -> StreamView:
        return self.find(stream_id).view()

    async def list_streams(self, prefix: str, after: str, limit: int) -> list[StreamView]:
        self.fail()
        names = sorted(name for name in self.streams if name.startswith(prefix) and name > after)
        return [self.streams[name].view() for name in names[:limit]]

    async def update_stream(
        self, stream_id: str, *, labels: Mapping[str, str] | None, retention: Retention | None
    ) -> StreamView:
        kept = self.find(stream_id)
        if labels is not None:
            kept.new = replace(kept.new, labels=labels)
        if retention is not None:
            kept.new = replace(kept.new, retention=retention)
        return kept.view()

    async def delete_stream(self, stream_id: str) -> None:
        self.find(stream_id)
        del self.streams[stream_id]

    async def open_ingest(self, new: NewStream, kind: PayloadKind, overload: Overload) -> IngestSession:
        self.fail()
        session = Session(self, self.streams.setdefault(new.stream_id, Kept(new)), kind, overload)
        self.sessions.append(session)
        return session

    async def ask(self, call: AskCall) -> AsyncIterator[str | Answered]:
        first, *_ = self._asked_of(call)
        self.asked.append(call)
        self.num_answering += 1
        try:
            await self.gate.wait()
            for piece in self.pieces:
                yield piece
            while self.endless:
                await asyncio.sleep(0)
                self.num_pieces += 1
                yield self.pieces[-1]
            yield self._answered(call, first)
        finally:
            self.num_answering -= 1

    def _answered(self, call: AskCall, stream_id: str) -> Answered:
        result = AnswerResult(
            text="".join(self.pieces),
            evidence=(MOMENT,),
            session_id=call.options.session_id or "s-1",
            usage=USAGE,
            timings={"first_token": 1.5, "total": 2.0},
            warnings=self.warnings,
        )
        return Answered(stream_id=stream_id, result=result, moments=(Moment(stream_id=stream_id, evidence=MOMENT),))

    async def search(self, call: SearchCall) -> Found:
        await self.gate.wait()
        picture = b"jpeg" if call.thumbnails else b""
        names = self._asked_of(call)
        moments = tuple(Moment(stream_id=name, evidence=MOMENT, thumbnail=picture) for name in names)
        return Found(moments=moments[: call.options.top_k], warnings=self.warnings)

    def _asked_of(self, call: AskCall | SearchCall) -> tuple[str, ...]:
        """Those named, or those in the library that are meant."""
        if call.library is None:
            for stream_id in call.streams:
                self.find(stream_id)
            return call.streams
        self.fail()
        names = tuple(name for name, kept in sorted(self.streams.items()) if call.library.holds(kept.record()))
        if not names:
            raise NothingToAnswer(f"there are no {call.library}: see the list")
        return names

    async def status(self) -> ClusterStatus:
        self.fail()
        actors = tuple(
            ActorStatus(name=f"{role}-0", role=role, alive=True, pid=7, resident_bytes=9, exposition=EXPOSITION)
            for role in ("encoder", "store")
        )
        live = tuple(
            LiveStream(stream_id=name, encoder="encoder-0", position=kept.position, queued=0)
            for name, kept in self.streams.items()
        )
        return ClusterStatus(actors=actors, streams=live)

    async def scale(self, *, encoders: int | None, answerers: int | None) -> tuple[int, int]:
        self.fail()
        self.counts = (encoders or self.counts[0], answerers or self.counts[1])
        return self.counts


def _keeps_the_contract(cluster: MemoryCluster) -> ClusterPort:
    return cluster
