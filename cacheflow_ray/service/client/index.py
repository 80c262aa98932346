"""An index job at the service: followed, waited for, and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any, Protocol, TypeVar

from google.longrunning import operations_pb2
from google.longrunning.operations_pb2 import Operation
from grpc import StatusCode

from cacheflow_ray.actors.index_api import IndexView
from cacheflow_ray.archive.report import IndexProgress, IndexReport, progress_of, report_of
from cacheflow_ray.errors import DeadlinePassed, ServiceError
from cacheflow_ray.service import messages
from cacheflow_ray.service.client import methods
from cacheflow_ray.service.client.channel import Connection
from cacheflow_ray.service.status import Expected, error_in

T = TypeVar("T")

_LOOK_EVERY_S = 1.0
#: The service is asked to wait so long at a time.
_WAIT_S = 20.0
_CANCELLED = StatusCode.CANCELLED.value[0]


class AsyncIndexJob:
    """Iterate it for its progress, once a second until it is over; or `await wait()` for its report.

    The job goes on whether anybody looks or not: `AsyncClient.index_job` finds it again by its name.

    Attributes:
        view: as it was when it was looked at last.
    """

    def __init__(self, connection: Connection, operation: Operation, *, timeout_s: float) -> None:
        self._connection, self._timeout_s = connection, timeout_s
        self._take(operation)

    @property
    def name(self) -> str:
        """operations/JOB."""
        return messages.write_job_name(self.view.job.id)

    @property
    def metadata(self) -> IndexProgress:
        """How far it was when it was looked at last."""
        return progress_of(self.view.job.id, self.view.totals)

    @property
    def is_over(self) -> bool:
        """Whether it was over when it was looked at last."""
        return self._is_done

    async def done(self) -> bool:
        """Look whether it is over. Raises: JobNotFound: it was forgotten."""
        request = operations_pb2.GetOperationRequest(name=self.name)
        self._take(await self._connection.call(methods.GET_OPERATION, request, timeout_s=self._timeout_s))
        return self._is_done

    async def wait(self, timeout_s: float | None = None) -> IndexReport:
        """Its report, once it is over; also of a job that was cancelled.

        Raises:
            what ended it otherwise, as ClusterUnavailable: nobody runs it any more. DeadlinePassed: it goes on.
        """
        until_s = None if timeout_s is None else monotonic() + timeout_s
        while not self._is_done:
            left_s = _WAIT_S if until_s is None else min(_WAIT_S, until_s - monotonic())
            if left_s <= 0:
                raise DeadlinePassed(f"{self.name} is not over after {timeout_s} s: it goes on", job_id=self.name)
            request = operations_pb2.WaitOperationRequest(name=self.name)
            request.timeout.FromMilliseconds(round(left_s * 1000))
            waited_s = left_s + self._timeout_s
            self._take(await self._connection.call(methods.WAIT_OPERATION, request, timeout_s=waited_s))
        if self.view.error is not None:
            raise self.view.error
        return report_of(self.view.job, self.view.totals)

    async def cancel(self) -> None:
        """Have it stop; what is encoded is kept. `wait` for its end."""
        request = operations_pb2.CancelOperationRequest(name=self.name)
        await self._connection.call(methods.CANCEL_OPERATION, request, timeout_s=self._timeout_s)

    async def __aiter__(self) -> AsyncIterator[IndexProgress]:
        while True:
            yield self.metadata
            if self._is_done:
                return
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.done()

    def _take(self, operation: Operation) -> None:
        view, self._is_done = messages.read_operation(operation), bool(operation.done)
        error: Expected | None = None
        if operation.HasField("error") and operation.error.code != _CANCELLED:
            error = error_in(operation.error) or ServiceError(operation.error.message, job_id=operation.name)
        self.view: IndexView = replace(view, error=error)


class Runs(Protocol):
    """Whatever waits for a coroutine."""

    def run(self, work: Coroutine[Any, Any, T]) -> T: ...


class IndexJob:
    """As `AsyncIndexJob`, without asyncio."""

    def __init__(self, loop: Runs, job: AsyncIndexJob) -> None:
        self._loop, self._job = loop, job

    @property
    def name(self) -> str:
        """operations/JOB."""
        return self._job.name

    @property
    def view(self) -> IndexView:
        """As it was when it was looked at last."""
        return self._job.view

    @property
    def metadata(self) -> IndexProgress:
        """How far it was when it was looked at last."""
        return self._job.metadata

    @property
    def is_over(self) -> bool:
        """Whether it was over when it was looked at last."""
        return self._job.is_over

    def done(self) -> bool:
        """Look whether it is over."""
        return self._loop.run(self._job.done())

    def wait(self, timeout_s: float | None = None) -> IndexReport:
        """Its report, once it is over. Raises: as `AsyncIndexJob.wait`."""
        return self._loop.run(self._job.wait(timeout_s))

    def cancel(self) -> None:
        """Have it stop; what is encoded is kept."""
        self._loop.run(self._job.cancel())

    def __iter__(self) -> Iterator[IndexProgress]:
        now = aiter(self._job)
        while (progress := self._loop.run(_next(now))) is not None:
            yield progress


async def _next(now: AsyncIterator[IndexProgress]) -> IndexProgress | None:
    return await anext(now, None)
