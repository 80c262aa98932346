"""The client for asyncio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from google.longrunning import operations_pb2
from grpc_health.v1 import health_pb2

from cacheflow_ray.actors.api import AskCall, ClusterStatus, Found, Moment, NewStream, SearchCall, StreamView
from cacheflow_ray.actors.index_api import FilePage, NewIndex
from cacheflow_ray.archive.records import FileRecord, FileState
from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.scope import EVERYWHERE, Where, parted
from cacheflow_ray.errors import JobNotFound
from cacheflow_ray.service import messages
from cacheflow_ray.service.client import methods
from cacheflow_ray.service.client.answer import AsyncAnswer
from cacheflow_ray.service.client.channel import Asks, Connection, Gets, Method, Tls
from cacheflow_ray.service.client.index import AsyncIndexJob
from cacheflow_ray.service.client.ingest import IngestOptions, Progress, Watcher, check, opened
from cacheflow_ray.service.client.pushing import Pushing
from cacheflow_ray.service.client.sources import Source
from cacheflow_ray.service.v1 import admin_pb2, stream_pb2
from cacheflow_ray.types import TimeRange
from memory_store.errors import StreamNotFound
from memory_store.records import Retention

#: Streams asked for at once.
_PAGE_SIZE = 500


class AsyncClient:
    """Speaks to a service. Made in the event loop that uses it; close it, or use it as a context manager.

    While the service is unavailable, what is asked is asked again, with growing pauses, until `timeout_s` is over.
    Every method raises what the service raised, as the same class of `cacheflow_ray.errors` or `memory_store.errors`
    (ids are strings); ClusterUnavailable: nobody answers; DeadlinePassed: `timeout_s` is over.

    Args:
        address: HOST:PORT.
        api_key: tells the tenant, where the service has keys.
        tls: None: the connection is not encrypted, and the key can be read by whoever carries it.
        timeout_s: of every call but `ask` and `ingest`.
    """

    def __init__(
        self, address: str, *, api_key: str | None = None, tls: Tls | None = None, timeout_s: float = 60.0
    ) -> None:
        self._connection = Connection(address, api_key=api_key, tls=tls)
        self._timeout_s = timeout_s

    async def create_stream(self, new: NewStream) -> StreamView:
        """Make a stream; one made alike is returned as it is. Raises: StreamExists, SettingsMismatch."""
        request = stream_pb2.CreateStreamRequest(stream=messages.write_new_stream(new))
        return messages.read_stream((await self._call(methods.CREATE_STREAM, request)).stream)

    async def stream(self, name: str) -> StreamView:
        """One stream. Raises: StreamNotFound."""
        request = stream_pb2.GetStreamRequest(name=name)
        return messages.read_stream((await self._call(methods.GET_STREAM, request)).stream)

    async def streams(self, *, labels: Mapping[str, str] | None = None) -> list[StreamView]:
        """All streams that have these labels, by name."""
        found: list[StreamView] = []
        request = stream_pb2.ListStreamsRequest(page_size=_PAGE_SIZE, labels=labels or {})
        while True:
            page = await self._call(methods.LIST_STREAMS, request)
            found += map(messages.read_stream, page.streams)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def update_stream(
        self, name: str, *, labels: Mapping[str, str] | None = None, retention: Retention | None = None
    ) -> StreamView:
        """New labels and a new retention; None: as they are (`Retention()` keeps all). Raises: StreamNotFound."""
        request = messages.write_changes(messages.Changes(stream_id=name, labels=labels, retention=retention))
        return messages.read_stream((await self._call(methods.UPDATE_STREAM, request)).stream)

    async def delete_stream(self, name: str) -> None:
        """Delete a stream and all that is kept of it. Raises: StreamNotFound."""
        request = stream_pb2.DeleteStreamRequest(name=name)
        await self._call(methods.DELETE_STREAM, request, done_by_then=StreamNotFound)

    async def ingest(
        self,
        stream: str,
        source: Source,
        *,
        options: IngestOptions | None = None,
        progress: Watcher | None = None,
    ) -> StreamView:
        """Push a source into a stream, which is made if there is none; returns it once all is durable.

        Connections that break are made anew, and nothing is lost or taken twice: what is not durable is kept here and
        sent again, no more than the service gives credit for. Pushed again, as after a crash, only what the stream
        lacks is sent; a stream that is complete takes nothing.

        Args:
            source: frames, from any (async) iterable; or a file, folder of images or address, opened and sampled here
                at the stream's rate.
            progress: called with the totals of what is durable, in the event loop.

        Raises:
            SourceNotFound, UnsupportedMedia, BrokenMedia: of the source. EpochFenced: another client pushes the stream.
            UsageError: frames that do not count upwards. LimitExceeded: one is larger than the service takes.
        """
        options = options or IngestOptions()
        await check(source, options)  # a path that is none leaves no stream behind
        made = await self.create_stream(options.stream(stream))
        if made.info.complete:
            return made
        async with opened(source, made, options) as ready:
            pushing = Pushing(
                self._connection,
                options.start(stream),
                ready.feed,
                finish=lambda: options.finish and ready.has_ended,
                patience_s=options.patience_s,
                watch=Progress(made, ready, progress),
            )
            finished = await pushing.run()
            view = await self.stream(stream) if finished is None else messages.read_stream(finished)
            return replace(
                view,
                info=replace(view.info, warning=view.info.warning or ready.warning),
                position=replace(view.position, shed=pushing.shed),
            )

    def ask(
        self,
        streams: str | Sequence[str],
        question: str,
        *,
        options: AskOptions | None = None,
        after_seq: int | None = None,
        thumbnails: bool = False,
        timeout_s: float = 600.0,
    ) -> AsyncAnswer:
        """Ask about one or several streams: iterate the answer for its text, then read its `result`.

        Args:
            options: what is not set in it is as the model recommends.
            after_seq: answer only once every frame before it is durable.
            thumbnails: with a picture for each of the answer's `moments`.

        Raises (once it is iterated):
            StreamNotFound, EmptyQuestion, QuestionTooLong, NothingToAnswer, UsageError; as `VideoMemory.ask`.
        """
        call = AskCall(
            streams=(streams,) if isinstance(streams, str) else tuple(streams),
            question=question,
            options=options or AskOptions(),
            after_seq=after_seq,
            thumbnails=thumbnails,
        )
        return AsyncAnswer(self._connection, messages.write_question(call), timeout_s=timeout_s)

    def ask_library(
        self,
        question: str,
        *,
        where: Where = EVERYWHERE,
        options: AskOptions | None = None,
        thumbnails: bool = False,
        timeout_s: float = 600.0,
    ) -> AsyncAnswer:
        """Ask all streams, or those of `where`: the one with the best moment answers (`AsyncAnswer.stream`).

        Raises (once it is iterated):
            as `search_library` and `ask`; UsageError: a session, which belongs to one stream.
        """
        streams, library = parted(where)
        call = AskCall(
            streams=streams,
            library=library,
            question=question,
            options=options or AskOptions(),
            thumbnails=thumbnails,
        )
        return AsyncAnswer(self._connection, messages.write_question(call), timeout_s=timeout_s)

    async def search(
        self,
        streams: str | Sequence[str],
        text: str,
        *,
        top_k: int = 8,
        time_range: TimeRange | None = None,
        thumbnails: bool = False,
    ) -> list[Moment]:
        """Moments of one or several streams that match a text, best first. Raises as `ask`."""
        call = SearchCall(
            streams=(streams,) if isinstance(streams, str) else tuple(streams),
            text=text,
            options=AskOptions(top_k=top_k, time_range=time_range),
            thumbnails=thumbnails,
        )
        return list((await self._search(call)).moments)

    async def search_library(
        self,
        text: str,
        *,
        where: Where = EVERYWHERE,
        top_k: int = 20,
        time_range: TimeRange | None = None,
        thumbnails: bool = False,
    ) -> Found:
        """Moments of all streams that match a text, best first.

        Args:
            where: of them only those with such names and labels (whose they are the key tells), or those named.
            time_range: of each stream's own time.

        Raises:
            EmptyQuestion, QuestionTooLong; NothingToAnswer: no such stream, or none holds a whole block there.
        """
        streams, library = parted(where)
        call = SearchCall(
            streams=streams,
            library=library,
            text=text,
            options=AskOptions(top_k=top_k, time_range=time_range),
            thumbnails=thumbnails,
        )
        return await self._search(call)

    async def _search(self, call: SearchCall) -> Found:
        return messages.read_found(await self._call(methods.SEARCH, messages.write_search(call)))

    async def index(self, new: NewIndex) -> AsyncIndexJob:
        """Have the service index a library, as an operation of its own; whoever looks after it may go away.

        Raises:
            UsageError: a source that the service may not read. LimitExceeded: another job is under way.
        """
        return self._job(await self._call(methods.CREATE_INDEX_JOB, messages.write_new_index(new)))

    async def index_job(self, name: str) -> AsyncIndexJob:
        """A job by the name of its operation. Raises: JobNotFound."""
        request = operations_pb2.GetOperationRequest(name=name)
        return self._job(await self._call(methods.GET_OPERATION, request))

    async def index_jobs(self) -> list[AsyncIndexJob]:
        """All jobs, the newest first."""
        found: list[AsyncIndexJob] = []
        request = operations_pb2.ListOperationsRequest(name="operations", page_size=_PAGE_SIZE)
        while True:
            page = await self._call(methods.LIST_OPERATIONS, request)
            found += map(self._job, page.operations)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def forget_index_job(self, name: str) -> None:
        """A job that is over; its files and streams stay. Raises: JobNotFound; UsageError: it is under way."""
        request = operations_pb2.DeleteOperationRequest(name=name)
        await self._call(methods.DELETE_OPERATION, request, done_by_then=JobNotFound)

    async def index_files(self, *, state: FileState | None = None, job: str | None = None) -> list[FileRecord]:
        """What became of files, by uri. Args: job: name of the operation that touched them last."""
        found: list[FileRecord] = []
        job_id = None if job is None else messages.read_job_name(job)
        page = FilePage(tenant="", after="", limit=_PAGE_SIZE, job_id=job_id, state=state)
        token = ""
        while True:
            answer = await self._call(methods.LIST_INDEX_FILES, messages.write_file_page(page, token=token))
            found += map(messages.read_index_file, answer.files)
            if not answer.next_page_token:
                return found
            token = answer.next_page_token

    def _job(self, operation: operations_pb2.Operation) -> AsyncIndexJob:
        return AsyncIndexJob(self._connection, operation, timeout_s=self._timeout_s)

    async def status(self) -> ClusterStatus:
        """What runs. Raises: PermissionDenied."""
        return messages.read_status(await self._call(methods.GET_STATUS, admin_pb2.GetStatusRequest()))

    async def scale(self, *, encoders: int | None = None, answerers: int | None = None) -> tuple[int, int]:
        """Change how many encoders and answerers there are, None: as they are; returns both. Raises as `status`."""
        request = admin_pb2.ScaleRequest(encoders=encoders, answerers=answerers)
        now = await self._call(methods.SCALE, request)
        return now.encoders, now.answerers

    async def health(self, service: str = "", *, timeout_s: float = 5.0) -> bool:
        """Whether the service takes work; False while it drains. Args: service: one of its parts, by full name."""
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await self._connection.call(methods.HEALTH, request, timeout_s=timeout_s)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Ends what is under way."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self, method: Method[Asks, Gets], request: Asks, *, done_by_then: type[Exception] | None = None
    ) -> Gets:
        return await self._connection.call(method, request, timeout_s=self._timeout_s, done_by_then=done_by_then)
