"""What the service asks of index jobs: `IndexJobs` keeps it, with an actor for each job that keeps books."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cacheflow_ray.archive.records import FileRecord, FileState, JobRecord, JobState, JobTotals
from cacheflow_ray.config import StreamSettings
from cacheflow_ray.errors import CacheFlowError
from memory_store.errors import StoreError
from memory_store.records import Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIndex:
    """A library to be indexed.

    Args:
        sources: folders, patterns, manifests, files and addresses; none: what failed before, with `retry_failed`.
        job_id: of the tenant's; a job that has it, and the same sources, is gone on with.
        settings, retention: of every stream; None: as the model recommends, and all.
        retry_failed: also what failed for its own fault.
        indexers: processes, each with a model; files_at_once: in each of them.
        max_streams: that the tenant may have; None: as many as there is room for.
    """

    sources: tuple[str, ...] = ()
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    tenant: str = ""
    settings: StreamSettings | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    retention: Retention | None = None
    retry_failed: bool = False
    indexers: int = 1
    files_at_once: int = 8
    max_streams: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexView:
    """A job as it is now. `error`: what ended it, or that nobody runs it any more."""

    job: JobRecord
    totals: JobTotals
    error: CacheFlowError | StoreError | None = None

    @property
    def is_over(self) -> bool:
        return self.job.state is not JobState.RUNNING or self.error is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePage:
    """Files asked for: those after the uri `after`, in order, of a job and in a state where these are given."""

    tenant: str
    after: str
    limit: int
    job_id: str | None = None
    state: FileState | None = None


class IndexPort(Protocol):
    """Jobs of one tenant are not there for another. Every call may raise `ClusterUnavailable`."""

    async def start(self, new: NewIndex) -> IndexView:
        """Have a job run, for as long as it takes and whoever dies.

        Raises:
            UsageError: a source may not be read, or the id is another job's.
        """

    async def get(self, tenant: str, job_id: str) -> IndexView:
        """Raises: JobNotFound."""

    async def jobs(self, tenant: str) -> list[IndexView]:
        """All jobs, the newest first."""

    async def cancel(self, tenant: str, job_id: str) -> None:
        """Have it stop; what is encoded is kept. A job that is over stays as it ended. Raises: JobNotFound."""

    async def forget(self, tenant: str, job_id: str) -> None:
        """Its files and streams stay. Raises: JobNotFound; UsageError: it is not over."""

    async def files(self, page: FilePage) -> list[FileRecord]:
        """What became of the tenant's files."""
