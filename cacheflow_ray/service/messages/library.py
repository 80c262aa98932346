"""Index jobs: to be started, and as operations."""

from __future__ import annotations

import uuid

from google.longrunning.operations_pb2 import Operation
from google.protobuf.timestamp_pb2 import Timestamp

from cacheflow_ray.actors.index_api import IndexView, NewIndex
from cacheflow_ray.archive.meter import Counts
from cacheflow_ray.archive.records import FileState, JobRecord, JobState, JobTotals, Trouble
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.messages.fields import nanoseconds, read_labels, write_enum
from cacheflow_ray.service.messages.index_files import FILE_STATES, JOB, told_job_id, write_job_name
from cacheflow_ray.service.messages.settings import read_retention, read_settings, write_retention, write_settings
from cacheflow_ray.service.tenants import without_tenant
from cacheflow_ray.service.v1 import library_pb2

#: Sources of one job, and characters of each.
MAX_SOURCES = 1000
MAX_SOURCE = 4096

_Metadata = library_pb2.IndexJobMetadata
_JOB_STATES = {
    _Metadata.STATE_RUNNING: JobState.RUNNING,
    _Metadata.STATE_DONE: JobState.DONE,
    _Metadata.STATE_CANCELLED: JobState.CANCELLED,
    _Metadata.STATE_FAILED: JobState.FAILED,
}


def read_new_index(
    message: library_pb2.CreateIndexJobRequest, tenant: str = "", *, max_streams: int | None = None
) -> NewIndex:
    """Args: max_streams: that the tenant may have. Raises: UsageError, InvalidConfig: naming the field."""
    if message.job_id and not JOB.fullmatch(message.job_id):
        raise UsageError(
            f"job_id: {message.job_id!r:.160} is not allowed; allowed: 1 to 63 small letters, digits or '-'",
            field="job_id",
        )
    _check_sources(message)
    crew = message.crew
    return NewIndex(
        job_id=message.job_id or uuid.uuid4().hex[:12],
        tenant=tenant,
        sources=tuple(message.sources),
        settings=read_settings(message.settings) if message.HasField("settings") else None,
        labels=read_labels(message.labels),
        retention=read_retention(message.retention) if message.HasField("retention") else None,
        retry_failed=message.retry_failed,
        indexers=crew.indexers or 1,
        files_at_once=crew.files_at_once or 8,
        max_streams=max_streams,
    )


def _check_sources(message: library_pb2.CreateIndexJobRequest) -> None:
    sources = message.sources
    if not sources and not message.retry_failed:
        raise UsageError("sources: none is given; give 1 at least, or retry_failed", field="sources")
    if len(sources) > MAX_SOURCES:
        raise UsageError(f"sources: {len(sources)} are too many; allowed: up to {MAX_SOURCES}", field="sources")
    for source in sources:
        if not 0 < len(source) <= MAX_SOURCE or "\0" in source:
            raise UsageError(
                f"sources: {source!r:.160} is not allowed; allowed: 1 to {MAX_SOURCE} characters, no NUL",
                field="sources",
            )


def write_new_index(new: NewIndex) -> library_pb2.CreateIndexJobRequest:
    """As a client asks for it."""
    return library_pb2.CreateIndexJobRequest(
        sources=new.sources,
        job_id=new.job_id,
        settings=None if new.settings is None else write_settings(new.settings),
        labels=new.labels,
        retention=None if new.retention is None else write_retention(new.retention),
        retry_failed=new.retry_failed,
        crew=library_pb2.IndexCrew(indexers=new.indexers, files_at_once=new.files_at_once),
    )


def read_operation(message: Operation) -> IndexView:
    """As a server tells it; what ended it otherwise than it should is `messages.error_in(message.error)`."""
    metadata = _Metadata()
    message.metadata.Unpack(metadata)
    report = library_pb2.IndexJobReport()
    if message.HasField("response"):
        message.response.Unpack(report)
    job = JobRecord(
        id=told_job_id(message.name),
        sources=tuple(metadata.sources),
        state=_JOB_STATES.get(metadata.state, JobState.RUNNING),
        started_s=metadata.create_time.ToNanoseconds() / 10**9,
        ended_s=metadata.end_time.ToNanoseconds() / 10**9 if metadata.HasField("end_time") else None,
        is_served=True,
    )
    troubles = tuple(
        Trouble(uri=own.uri, state=FILE_STATES.get(own.state, FileState.PENDING), reason=own.reason)
        for own in report.troubles
    )
    return IndexView(job=job, totals=read_index_totals(metadata.totals, troubles))


def write_operation(view: IndexView, tenant: str = "") -> Operation:
    """Without what ended it, where that is an error."""
    job, totals = view.job, write_index_totals(view.totals)
    metadata = _Metadata(
        sources=job.sources,
        state=write_enum(_JOB_STATES, job.state),
        totals=totals,
        create_time=_timestamp(job.started_s),
        end_time=None if job.ended_s is None else _timestamp(job.ended_s),
    )
    operation = Operation(name=write_job_name(job.id), done=view.is_over)
    operation.metadata.Pack(metadata)
    if job.state is JobState.DONE:
        troubles = [
            library_pb2.IndexTrouble(
                uri=own.uri, state=write_enum(FILE_STATES, own.state), reason=without_tenant(tenant, own.reason)
            )
            for own in view.totals.troubles
        ]
        operation.response.Pack(library_pb2.IndexJobReport(totals=totals, troubles=troubles))
    return operation


def read_index_totals(message: library_pb2.IndexTotals, troubles: tuple[Trouble, ...] = ()) -> JobTotals:
    """Troubles come beside."""
    return JobTotals(
        files={state: getattr(message, f"{state.value}_files") for state in FileState},
        already_done=message.already_done_files,
        counts=Counts(
            frames=message.frames,
            tokens_seen=message.tokens_seen,
            tokens_kept=message.tokens_kept,
            video_s=message.video_s,
            decode_s=message.decode_s,
            encode_s=message.encode_s,
        ),
        busy_s=message.busy_s,
        left=message.left,
        troubles=troubles,
    )


def write_index_totals(totals: JobTotals) -> library_pb2.IndexTotals:
    files, counts = {f"{state.value}_files": count for state, count in totals.files.items()}, totals.counts
    return library_pb2.IndexTotals(
        already_done_files=totals.already_done,
        frames=counts.frames,
        tokens_seen=counts.tokens_seen,
        tokens_kept=counts.tokens_kept,
        video_s=counts.video_s,
        decode_s=counts.decode_s,
        encode_s=counts.encode_s,
        busy_s=totals.busy_s,
        left=totals.left,
        **files,
    )


def _timestamp(time_s: float) -> Timestamp:
    message = Timestamp()
    message.FromNanoseconds(nanoseconds(time_s))
    return message
