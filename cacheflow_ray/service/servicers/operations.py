"""google.longrunning.Operations: index jobs, as any client of long-running operations knows them."""

from __future__ import annotations

import asyncio
import time

from google.longrunning import operations_pb2
from google.longrunning.operations_pb2 import ListOperationsResponse, Operation
from google.protobuf.empty_pb2 import Empty
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.actors.index_api import IndexView
from cacheflow_ray.archive.records import JobState
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.calls import Call
from cacheflow_ray.service.messages import (
    read_job_name,
    read_page_size,
    read_uri_token,
    write_operation,
    write_uri_token,
)
from cacheflow_ray.service.status import message_of

_LOOK_EVERY_S = 0.5
#: A wait ends so long before the client would end it.
_MARGIN_S = 0.5
#: A wait of which nothing is said.
_WAIT_S = 60.0


class OperationsServicer:
    """Jobs of the caller's tenant; another's are not there. `closing`: done once the gateway closes; waits end then."""

    def __init__(self, cluster: ClusterPort, closing: asyncio.Future[None]) -> None:
        self._cluster, self._closing = cluster, closing

    async def get_operation(self, request: operations_pb2.GetOperationRequest, call: Call) -> Operation:
        return told(await self._view(request.name, call), call.tenant.name)

    async def list_operations(
        self, request: operations_pb2.ListOperationsRequest, call: Call
    ) -> ListOperationsResponse:
        """The newest first. Raises: UsageError: a filter, of which there is none."""
        if request.filter:
            raise UsageError("filter: there is none; leave it out", field="filter")
        limit, after = read_page_size(request.page_size), read_uri_token(request.page_token)
        views = await self._cluster.index.jobs(call.tenant.name)
        ids = [view.job.id for view in views]
        begin = ids.index(after) + 1 if after in ids else 0
        shown = views[begin : begin + limit]
        return ListOperationsResponse(
            operations=[told(view, call.tenant.name) for view in shown],
            next_page_token=write_uri_token(shown[-1].job.id) if views[begin + limit :] else "",
        )

    async def cancel_operation(self, request: operations_pb2.CancelOperationRequest, call: Call) -> Empty:
        await self._cluster.index.cancel(call.tenant.name, read_job_name(request.name))
        return Empty()

    async def delete_operation(self, request: operations_pb2.DeleteOperationRequest, call: Call) -> Empty:
        await self._cluster.index.forget(call.tenant.name, read_job_name(request.name))
        return Empty()

    async def wait_operation(self, request: operations_pb2.WaitOperationRequest, call: Call) -> Operation:
        """As it is once it is over, or when the time is."""
        until_s = time.time() + _wait_s(request)
        if call.deadline_s is not None:
            until_s = min(until_s, call.deadline_s - _MARGIN_S)
        while True:
            view = await self._view(request.name, call)
            left_s = until_s - time.time()
            if view.is_over or left_s <= 0 or self._closing.done():
                return told(view, call.tenant.name)
            await asyncio.wait([self._closing], timeout=min(left_s, _LOOK_EVERY_S))

    async def _view(self, name: str, call: Call) -> IndexView:
        return await self._cluster.index.get(call.tenant.name, read_job_name(name))


def told(view: IndexView, tenant: str) -> Operation:
    """The operation, with what ended it."""
    operation = write_operation(view, tenant)
    if view.error is not None:
        operation.error.CopyFrom(message_of(view.error, tenant=tenant))
    elif view.job.state is JobState.CANCELLED:
        operation.error.CopyFrom(Status(code=StatusCode.CANCELLED.value[0], message="the job was cancelled"))
    return operation


def _wait_s(request: operations_pb2.WaitOperationRequest) -> float:
    """Raises: UsageError: a time that is negative."""
    if not request.HasField("timeout"):
        return _WAIT_S
    wait_s = float(request.timeout.seconds + request.timeout.nanos / 10**9)
    if wait_s < 0:
        raise UsageError(f"timeout: {wait_s} s is not allowed; allowed: 0 s and longer", field="timeout")
    return wait_s
