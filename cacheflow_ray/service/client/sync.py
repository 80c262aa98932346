"""The client for code without asyncio: `AsyncClient` in an event loop of its own, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from cacheflow_ray.actors.api import Moment
from cacheflow_ray.engine.reports import AnswerResult
from cacheflow_ray.errors import ServiceError
from cacheflow_ray.service.client.aio import AsyncClient
from cacheflow_ray.service.client.answer import AsyncAnswer
from cacheflow_ray.service.client.channel import Tls
from cacheflow_ray.service.client.index import AsyncIndexJob, IndexJob

P = ParamSpec("P")
T = TypeVar("T")


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cacheflow-client", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for it, from any other thread. An exception in the one that waits, as Ctrl-C, cancels it."""
        if not self.is_running or threading.current_thread() is self._thread:
            work.close()
            where = "in what it calls back" if self.is_running else "after it was closed"
            raise ServiceError(f"a client cannot be used {where}: use another one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ServiceError("the client was closed meanwhile") from None
        finally:
            future.cancel()

    def stop(self) -> None:
        """Cancels what is under way."""
        self.run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


def _waited(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """The method of `AsyncClient`, waited for."""

    @wraps(method)
    def wait(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.loop.run(method(self.aio, *args, **kwargs))

    return wait


def _iterated(method: Callable[Concatenate[AsyncClient, P], AsyncAnswer]) -> Callable[Concatenate[Client, P], Answer]:
    """The method of `AsyncClient`, with an answer that is iterated without asyncio."""

    @wraps(method)
    def ask(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return Answer(self.loop, method(self.aio, *args, **kwargs))

    return ask


def _followed(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, AsyncIndexJob]],
) -> Callable[Concatenate[Client, P], IndexJob]:
    """The method of `AsyncClient`, with a job that is followed without asyncio."""

    @wraps(method)
    def follow(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> IndexJob:
        return IndexJob(self.loop, self.loop.run(method(self.aio, *args, **kwargs)))

    return follow


class Answer:
    """Iterate it for the text as it is made, then read `result`; as `AsyncAnswer`."""

    def __init__(self, loop: _Loop, answer: AsyncAnswer) -> None:
        self._loop, self._answer = loop, answer

    def __iter__(self) -> Iterator[str]:
        pieces = aiter(self._answer)
        while (piece := self._loop.run(_next(pieces))) is not None:
            yield piece

    @property
    def result(self) -> AnswerResult:
        """The whole answer; waits for what has not been iterated yet. Raises what ended it early."""
        return self._loop.run(self._answer.read())

    @property
    def stream(self) -> str:
        """The stream that answered, once `result` has been read."""
        return self._answer.stream

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The evidence with its pictures, once `result` has been read."""
        return self._answer.moments

    def close(self) -> None:
        """Stop generating. What was not iterated yet is lost."""
        self._loop.run(self._answer.close())


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


class Client:
    """As `AsyncClient`, method by method, for any thread, also one that runs an event loop. Close it, or use it as a
    context manager.
    """

    def __init__(
        self, address: str, *, api_key: str | None = None, tls: Tls | None = None, timeout_s: float = 60.0
    ) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(address, api_key=api_key, tls=tls, timeout_s=timeout_s)

        self.loop = _Loop()
        try:
            self.aio = self.loop.run(make())
        except BaseException:
            self.loop.stop()
            raise

    create_stream = _waited(AsyncClient.create_stream)
    stream = _waited(AsyncClient.stream)
    streams = _waited(AsyncClient.streams)
    update_stream = _waited(AsyncClient.update_stream)
    delete_stream = _waited(AsyncClient.delete_stream)
    ingest = _waited(AsyncClient.ingest)
    ask = _iterated(AsyncClient.ask)
    ask_library = _iterated(AsyncClient.ask_library)
    search = _waited(AsyncClient.search)
    search_library = _waited(AsyncClient.search_library)
    index = _followed(AsyncClient.index)
    index_job = _followed(AsyncClient.index_job)
    index_files = _waited(AsyncClient.index_files)
    forget_index_job = _waited(AsyncClient.forget_index_job)
    status = _waited(AsyncClient.status)
    scale = _waited(AsyncClient.scale)
    health = _waited(AsyncClient.health)

    def index_jobs(self) -> list[IndexJob]:
        """As `AsyncClient.index_jobs`."""
        return [IndexJob(self.loop, job) for job in self.loop.run(self.aio.index_jobs())]

    def close(self) -> None:
        """Ends what is under way. Again: does nothing."""
        if self.loop.is_running:
            self.loop.run(self.aio.close())
            self.loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
