"""Index jobs as a service beside them sees them: what they do is in the books, that they live is Ray's to know."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import ray

from cacheflow_ray import errors
from cacheflow_ray.actors.index_api import FilePage, IndexView, NewIndex
from cacheflow_ray.actors.index_job import IndexJob, actor_name
from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.actors.spawning import bound_to, is_there, spawn
from cacheflow_ray.archive.access import Gate
from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.records import FileRecord, JobRecord, JobState, JobTotals
from cacheflow_ray.errors import CacheFlowError, ClusterUnavailable, JobNotFound, ServiceError, UsageError
from memory_store import errors as store_errors
from memory_store.errors import StoreError


class IndexJobs:
    """See `index_api.IndexPort`."""

    def __init__(self, setup: Setup, store: RemoteStore) -> None:
        self._setup, self._store = setup, store

    async def start(self, new: NewIndex) -> IndexView:
        return await asyncio.to_thread(self._start, new)

    async def get(self, tenant: str, job_id: str) -> IndexView:
        return await asyncio.to_thread(self._get, tenant, job_id)

    async def jobs(self, tenant: str) -> list[IndexView]:
        return await asyncio.to_thread(self._list, tenant)

    async def cancel(self, tenant: str, job_id: str) -> None:
        await asyncio.to_thread(self._cancel, tenant, job_id)

    async def forget(self, tenant: str, job_id: str) -> None:
        await asyncio.to_thread(self._forget, tenant, job_id)

    async def files(self, page: FilePage) -> list[FileRecord]:
        return await asyncio.to_thread(self._files, page)

    def _start(self, new: NewIndex) -> IndexView:
        gate = Gate(root=self._setup.source_root)
        for source in new.sources:
            gate.source(source)
        books = self._books(new.tenant)
        job = books.job(new.job_id)
        if job is None:
            job = JobRecord(id=new.job_id, sources=new.sources, started_s=time.time(), is_served=True)
            books.put_job(job)
        elif job.sources != new.sources or not job.is_served:
            raise UsageError(f"job_id: {new.job_id!r} is another job's: give a new one, or none", field="job_id")
        if job.state is JobState.RUNNING:
            self._spawn(new)
        return self._view(new.tenant, job)

    def _spawn(self, new: NewIndex) -> None:
        name = actor_name(new.tenant, new.job_id)
        bound = bound_to(self._setup.topology, "gateway")
        spawn(IndexJob, name, self._setup.namespace, self._setup, new, max_concurrency=2, **bound)

    def _get(self, tenant: str, job_id: str) -> IndexView:
        job = self._books(tenant).job(job_id)
        if job is None or not job.is_served:
            raise JobNotFound(f"there is no index job {job_id!r}: see the list", job_id=job_id)
        return self._view(tenant, job)

    def _list(self, tenant: str) -> list[IndexView]:
        return [self._view(tenant, job) for job in self._books(tenant).jobs() if job.is_served]

    def _cancel(self, tenant: str, job_id: str) -> None:
        books, view = self._books(tenant), self._get(tenant, job_id)
        if view.job.state is not JobState.RUNNING:
            return
        books.stop_job(job_id)
        if view.is_over:  # nobody is there to see it
            books.put_job(replace(view.job, state=JobState.CANCELLED, ended_s=time.time()))

    def _forget(self, tenant: str, job_id: str) -> None:
        if not self._get(tenant, job_id).is_over:
            raise UsageError(f"index job {job_id!r} is under way: cancel it first", job_id=job_id)
        self._books(tenant).forget_job(job_id)

    def _files(self, page: FilePage) -> list[FileRecord]:
        found = [record for record in self._books(page.tenant).files() if record.uri > page.after]
        if page.job_id is not None:
            found = [record for record in found if record.job == page.job_id]
        if page.state is not None:
            found = [record for record in found if record.state is page.state]
        return found[: page.limit]

    def _view(self, tenant: str, job: JobRecord) -> IndexView:
        books, error = self._books(tenant), _raised(job)
        if job.state is JobState.RUNNING and not is_there(actor_name(tenant, job.id), self._setup.namespace):
            job = books.job(job.id) or job  # it may have ended meanwhile
            error = _raised(job)
            if job.state is JobState.RUNNING:
                error = ClusterUnavailable(
                    f"index job {job.id!r} was broken off, for the cluster it ran in was stopped: a new job of the "
                    "same sources goes on where it was",
                    job_id=job.id,
                )
        return IndexView(job=job, totals=books.totals(job.id) or JobTotals(), error=error)

    def _books(self, tenant: str) -> Books:
        return Books(self._store.ledger, tenant)


def let_jobs_go(namespace: str) -> None:
    """End every job's actor, wherever its job is. Asked in a process of the same namespace."""
    for name in ray.util.list_named_actors():
        if name.startswith(actor_name("", "")):
            ray.kill(ray.get_actor(name, namespace))


def _raised(job: JobRecord) -> CacheFlowError | StoreError | None:
    """What ended the job, as it was raised."""
    if job.state is not JobState.FAILED:
        return None
    kind: Any = next((getattr(home, job.error_kind, None) for home in (errors, store_errors)), None)
    return (kind or ServiceError)(job.error or "the job failed, and its log says why", job_id=job.id)
