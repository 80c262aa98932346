"""A run over an archive, from what it was given to its report."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray

from cacheflow_ray.actors.board import Board, Totals
from cacheflow_ray.actors.errors import unwrapped
from cacheflow_ray.actors.indexer import index_files
from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.finding import Found
from cacheflow_ray.archive.planning import NO_VIDEO, planned, to_do, within_quota
from cacheflow_ray.archive.records import FileRecord, FileState, JobRecord, JobState, JobTotals
from cacheflow_ray.archive.report import IndexProgress, IndexReport, progress_of, report_of, tally, troubles_of
from cacheflow_ray.errors import CacheFlowError
from memory_store.errors import StoreError

if TYPE_CHECKING:
    from cacheflow_ray.archive.indexing import Wanted

_LOG = logging.getLogger(__name__)

_NOTE_EVERY_S = 1.0
#: Troubles kept with a job that is over; the books tell them all.
_TROUBLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCall:
    """A run that is wanted.

    Args:
        sources: as they were given; found: what they stand for.
        labels: of all streams.
        retry: what failed for its own fault, too.
        job_id: of a new job, or of one that was killed and goes on.
        refusal: why a file must be left alone, or "".
        max_streams: that there may be; None: as many as there is room for.
    """

    sources: Sequence[str]
    found: Sequence[Found]
    wanted: Wanted
    labels: Mapping[str, str] = field(default_factory=dict)
    retry: bool = False
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    refusal: Callable[[Found], str] = lambda _: ""
    max_streams: int | None = None


def run_index(setup: Setup, call: IndexCall, watch: Callable[[IndexProgress], None]) -> IndexReport:
    """Index what was found into the cluster's stores, which are there, and wait for it.

    Interrupted by what `watch` raises, or by a kill, it goes on where it was when it is run again: what is done is not
    done again.

    Raises:
        what `watch` raised, once what is under way is kept. StoreError, ClusterUnavailable, RayError.
    """
    with closing(RemoteStore(setup)) as store:
        return _indexed(setup, call, store, watch)


def _indexed(setup: Setup, call: IndexCall, store: RemoteStore, watch: Callable[[IndexProgress], None]) -> IndexReport:
    books = Books(store.ledger, call.wanted.tenant)
    job = _begun(books.job(call.job_id), call)
    books.put_job(job)
    plan = _planned(store, books, call)
    board: Any = ray.remote(Board).options(num_cpus=0).remote()
    run = _Run(job=job, books=books, plan=plan, board=board, watch=watch, before=_before(books, job, plan))
    ended = replace(job, state=JobState.DONE)
    try:
        books.put_files(plan)
        if files := to_do(plan):
            index_files(setup, files, call.wanted, board, run.look)
    except BaseException as error:
        ended = replace(job, state=JobState.CANCELLED) if run.was_stopped(error) else failed(job, error)
        raise
    finally:
        totals = run.last()
        books.put_totals(job.id, totals)
        ended = replace(ended, ended_s=time.time())
        books.put_job(ended)
    return report_of(ended, totals)


def failed(job: JobRecord, error: BaseException) -> JobRecord:
    """The job, ended by what was raised."""
    told = unwrapped(error, "an indexer")
    if isinstance(told, CacheFlowError | StoreError):
        kind, message = type(told).__name__, str(told)
    else:
        _LOG.error("index job %s failed for a reason nobody thought of", job.id, exc_info=error)
        kind, message = "", f"unexpected {type(told).__name__}: {told}"
    return replace(job, state=JobState.FAILED, error=message, error_kind=kind, ended_s=time.time())


def _begun(before: JobRecord | None, call: IndexCall) -> JobRecord:
    """The job as it is run from here; one that goes on has begun when it began first."""
    job = before or JobRecord(id=call.job_id, sources=tuple(call.sources), started_s=time.time())
    return replace(
        job, state=JobState.RUNNING, pid=os.getpid(), host=socket.gethostname(), ended_s=None, error="", error_kind=""
    )


def _before(books: Books, job: JobRecord, plan: Sequence[FileRecord]) -> JobTotals:
    """What an earlier process got through of this job; of a new job, what there was before."""
    done = sum(record.state is FileState.DONE for record in plan)
    return books.totals(job.id) or JobTotals(already_done=done)


def _planned(store: RemoteStore, books: Books, call: IndexCall) -> list[FileRecord]:
    """The plan; files whose streams were deleted since are new again."""
    known, tenant = books.files(), call.wanted.tenant
    streams = {record.stream_id for record in store.list_streams() if record.tenant == tenant}
    gone = [record for record in known if record.state is FileState.DONE and record.stream not in streams]
    for record in gone:
        books.release_content(record.content, record.stream)
    books.forget_files(gone)
    plan = planned(
        call.found,
        {record.uri: record for record in known if record not in gone},
        job=call.job_id,
        labels=call.labels,
        retry=call.retry,
        tenant=tenant,
        refusal=call.refusal,
    )
    return plan if call.max_streams is None else within_quota(plan, streams, call.max_streams)


@dataclass(slots=True, kw_only=True)
class _Run:
    """A run under way, as its watcher and its books see it."""

    job: JobRecord
    books: Books
    plan: Sequence[FileRecord]
    board: Any
    watch: Callable[[IndexProgress], None]
    before: JobTotals
    now: Totals = field(default_factory=Totals)
    noted_s: float = 0.0
    stopped_by: BaseException | None = None
    planned: Mapping[FileState, int] = field(init=False)
    num_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.planned = tally(self.plan)
        self.num_bytes = sum(record.size or 0 for record in to_do(self.plan))

    def look(self) -> None:
        totals = self._totals()
        if time.monotonic() - self.noted_s >= _NOTE_EVERY_S:
            self.noted_s = time.monotonic()
            self.books.put_totals(self.job.id, totals)
        try:
            self.watch(progress_of(self.job.id, totals))
        except BaseException as error:
            self.stopped_by = error
            raise

    def was_stopped(self, error: BaseException) -> bool:
        """Whether it was the watcher, or whoever sits in front, that wanted it to end."""
        return error is self.stopped_by or not isinstance(error, Exception)

    def last(self) -> JobTotals:
        """Once it is over, as the books have it."""
        uris = {record.uri for record in self.plan}
        records = [record for record in self.books.files() if record.uri in uris]
        return replace(self._totals(), files=tally(records), troubles=troubles_of(records, NO_VIDEO)[:_TROUBLES])

    def _totals(self) -> JobTotals:
        self.now = ray.get(self.board.totals.remote())
        states = dict(self.planned)
        for state, count in self.now.ended.items():
            states[FileState.PENDING] -= count
            states[state] += count
        return replace(
            self.before,
            files=states,
            counts=self.before.counts + self.now.counts,
            busy_s=self.before.busy_s + self.now.busy_s,
            left=1 - self.now.num_bytes / self.num_bytes if self.num_bytes else 0.0,
        )
