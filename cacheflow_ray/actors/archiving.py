"""A run over an archive, from what it was given to its report."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray

from cacheflow_ray.actors.board import Board, Totals
from cacheflow_ray.actors.indexer import index_files
from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.finding import Found
from cacheflow_ray.archive.planning import NO_VIDEO, planned, to_do
from cacheflow_ray.archive.records import FileRecord, FileState, JobRecord, JobState
from cacheflow_ray.archive.report import IndexProgress, IndexReport, report_of, tally

if TYPE_CHECKING:
    from cacheflow_ray.archive.indexing import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCall:
    """A run that is wanted.

    Args:
        sources: as they were given; found: what they stand for.
        labels: of all streams.
        retry: what failed for its own fault, too.
    """

    sources: Sequence[str]
    found: Sequence[Found]
    wanted: Wanted
    labels: Mapping[str, str] = field(default_factory=dict)
    retry: bool = False
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


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
    books = Books(store.ledger)
    job = JobRecord(
        id=call.job_id, sources=tuple(call.sources), pid=os.getpid(), host=socket.gethostname(), started_s=time.time()
    )
    plan = _planned(store, books, call)
    already = sum(record.state is FileState.DONE for record in plan)
    books.put_job(job)
    books.put_files(plan)
    files = to_do(plan)
    board: Any = ray.remote(Board).options(num_cpus=0).remote()
    run = _Run(job=job.id, plan=plan, num_bytes=sum(record.size or 0 for record in files), board=board, watch=watch)
    ended = JobState.CANCELLED
    try:
        if files:
            index_files(setup, files, call.wanted, board, run.look)
        ended = JobState.DONE
    finally:
        run.count()
        job = replace(job, state=ended, ended_s=time.time())
        books.put_job(job)
    uris = {record.uri for record in plan}
    records = [record for record in books.files() if record.uri in uris]
    return report_of(
        job,
        records,
        already_done=already,
        counts=run.totals.counts,
        busy_s=run.totals.busy_s,
        elapsed_s=time.time() - job.started_s,
        silent=NO_VIDEO,
    )


def _planned(store: RemoteStore, books: Books, call: IndexCall) -> list[FileRecord]:
    """The plan; files whose streams were deleted since are new again."""
    known = books.files()
    streams: Collection[str] = {record.stream_id for record in store.list_streams()}
    gone = [record for record in known if record.state is FileState.DONE and record.stream not in streams]
    for record in gone:
        books.release_content(record.content, record.stream)
    books.forget_files(gone)
    left = {record.uri: record for record in known if record not in gone}
    return planned(call.found, left, job=call.job_id, labels=call.labels, retry=call.retry)


@dataclass(slots=True, kw_only=True)
class _Run:
    """A run under way, as its watcher sees it."""

    job: str
    plan: Sequence[FileRecord]
    num_bytes: int
    board: Any
    watch: Callable[[IndexProgress], None]
    totals: Totals = field(default_factory=Totals)

    def look(self) -> None:
        self.count()
        states = tally(self.plan)
        for state, count in self.totals.ended.items():
            states[FileState.PENDING] -= count
            states[state] += count
        left = 1 - self.totals.num_bytes / self.num_bytes if self.num_bytes else 0.0
        self.watch(
            IndexProgress(
                job=self.job, states=states, counts=self.totals.counts, elapsed_s=self.totals.busy_s, left=left
            )
        )

    def count(self) -> None:
        self.totals = ray.get(self.board.totals.remote())
