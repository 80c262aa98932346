"""LibraryService: libraries of files, indexed as a whole."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace

from google.longrunning.operations_pb2 import Operation

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.actors.index_api import NewIndex
from cacheflow_ray.errors import JobNotFound
from cacheflow_ray.service.calls import Call
from cacheflow_ray.service.keys import Tenant
from cacheflow_ray.service.limits import Turnstile, check
from cacheflow_ray.service.messages import (
    read_file_page,
    read_new_index,
    write_index_file,
    write_uri_token,
)
from cacheflow_ray.service.servicers.operations import told
from cacheflow_ray.service.v1.library_pb2 import CreateIndexJobRequest, ListIndexFilesRequest, ListIndexFilesResponse


class LibraryServicer:
    """Jobs and files of the caller's tenant; another's are not there."""

    def __init__(self, cluster: ClusterPort, turnstile: Turnstile) -> None:
        self._cluster, self._limits = cluster, turnstile.limits
        self._starting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create_index_job(self, request: CreateIndexJobRequest, call: Call) -> Operation:
        limits, tenant = self._limits, call.tenant
        most = tenant.max_streams or limits.max_streams
        new = read_new_index(request, tenant.name, max_streams=most)
        check("max_indexers", limits.max_indexers, new.indexers, "indexers: ask for fewer")
        check("max_files_at_once", limits.max_files_at_once, new.files_at_once, "files at once: ask for fewer")
        async with self._starting[tenant.name]:
            await self._check_room(new, tenant)
            return told(await self._cluster.index.start(new), tenant.name)

    async def list_index_files(self, request: ListIndexFilesRequest, call: Call) -> ListIndexFilesResponse:
        page = read_file_page(request, call.tenant.name)
        found = await self._cluster.index.files(replace(page, limit=page.limit + 1))
        shown = found[: page.limit]
        return ListIndexFilesResponse(
            files=[write_index_file(record, call.tenant.name) for record in shown],
            next_page_token=write_uri_token(shown[-1].uri) if len(found) > page.limit else "",
        )

    async def _check_room(self, new: NewIndex, tenant: Tenant) -> None:
        """Raises: LimitExceeded: it would be new, and as many as may be are under way."""
        with suppress(JobNotFound):
            await self._cluster.index.get(tenant.name, new.job_id)
            return
        running = sum(not view.is_over for view in await self._cluster.index.jobs(tenant.name))
        what = "index jobs at a time for one tenant: wait for one to end, or cancel it"
        check("max_index_jobs", self._limits.max_index_jobs, running + 1, what)
