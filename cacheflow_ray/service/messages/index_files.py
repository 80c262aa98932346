"""What became of files, page by page; and what the operations of their jobs are called: `operations/JOB`."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from cacheflow_ray.actors.index_api import FilePage
from cacheflow_ray.archive.records import FileRecord, FileState
from cacheflow_ray.errors import JobNotFound, UsageError
from cacheflow_ray.service.messages.fields import read_enum, write_enum
from cacheflow_ray.service.messages.streams import MAX_PAGE_SIZE, PAGE_SIZE
from cacheflow_ray.service.tenants import bare, without_tenant
from cacheflow_ray.service.v1 import library_pb2

_PREFIX = "operations/"
#: What a job may be called.
JOB = re.compile(r"[a-z0-9-]{1,63}")

FILE_STATES = {
    library_pb2.INDEX_FILE_STATE_PENDING: FileState.PENDING,
    library_pb2.INDEX_FILE_STATE_RUNNING: FileState.RUNNING,
    library_pb2.INDEX_FILE_STATE_DONE: FileState.DONE,
    library_pb2.INDEX_FILE_STATE_FAILED: FileState.FAILED,
    library_pb2.INDEX_FILE_STATE_SKIPPED: FileState.SKIPPED,
}

_AS_THEY_ARE = (
    "reason",
    "transient",
    "attempts",
    "content",
    "frames",
    "tokens_seen",
    "tokens_kept",
    "blocks",
    "video_s",
    "took_s",
)


def read_job_name(name: str) -> str:
    """The job's id. Raises: JobNotFound: no operation is called so."""
    job_id = name.removeprefix(_PREFIX)
    if not name.startswith(_PREFIX) or not JOB.fullmatch(job_id):
        raise JobNotFound(f"there is no operation {name!r:.160}: they are called {_PREFIX}JOB", job_id=name)
    return job_id


def write_job_name(job_id: str) -> str:
    return _PREFIX + job_id


def told_job_id(name: str) -> str:
    """The job's id, of a name that a server told."""
    return name.removeprefix(_PREFIX)


def read_file_page(message: library_pb2.ListIndexFilesRequest, tenant: str = "") -> FilePage:
    """Raises: UsageError: a negative size, a token that no page gave, or a state that is none. JobNotFound."""
    return FilePage(
        tenant=tenant,
        after=read_uri_token(message.page_token),
        limit=read_page_size(message.page_size),
        job_id=read_job_name(message.job) if message.job else None,
        state=read_enum(FILE_STATES, message.state, "state"),
    )


def write_file_page(page: FilePage, *, token: str) -> library_pb2.ListIndexFilesRequest:
    """As a client asks for it. Args: token: of the page before; it says what `page.after` says inside."""
    return library_pb2.ListIndexFilesRequest(
        page_size=page.limit,
        page_token=token,
        job="" if page.job_id is None else write_job_name(page.job_id),
        state=library_pb2.INDEX_FILE_STATE_UNSPECIFIED if page.state is None else write_enum(FILE_STATES, page.state),
    )


def read_page_size(size: int) -> int:
    """Raises: UsageError: it is negative."""
    if size < 0:
        raise UsageError(
            f"page_size: {size} is not allowed; allowed: 1 to {MAX_PAGE_SIZE}, or 0 for {PAGE_SIZE}", field="page_size"
        )
    return min(size or PAGE_SIZE, MAX_PAGE_SIZE)


def read_uri_token(token: str) -> str:
    """Raises: UsageError: no page gave it."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise UsageError(
            "page_token: is none that a page gave; give `next_page_token` of the page before, or none",
            field="page_token",
        ) from None


def write_uri_token(last: str) -> str:
    """For the page after the one that `last` ends."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def read_index_file(message: library_pb2.IndexFile) -> FileRecord:
    """As a server tells it; labels, start and time of change stay untold."""
    return FileRecord(
        uri=message.uri,
        stream=message.stream,
        job=told_job_id(message.job),
        state=FILE_STATES.get(message.state, FileState.PENDING),
        size=message.size_bytes if message.HasField("size_bytes") else None,
        warning=message.warning or None,
        **{name: getattr(message, name) for name in _AS_THEY_ARE},
    )


def write_index_file(record: FileRecord, tenant: str = "") -> library_pb2.IndexFile:
    as_they_are: dict[str, Any] = {name: getattr(record, name) for name in _AS_THEY_ARE}
    return library_pb2.IndexFile(
        **as_they_are
        | {
            "uri": record.uri,
            "stream": bare(tenant, record.stream),
            "job": write_job_name(record.job),
            "state": write_enum(FILE_STATES, record.state),
            "size_bytes": record.size,
            "reason": without_tenant(tenant, record.reason),
            "warning": record.warning or "",
        }
    )
