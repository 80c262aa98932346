"""An answer on its way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from grpc import aio

from cacheflow_ray.actors.api import Answered, Moment
from cacheflow_ray.engine.reports import AnswerResult
from cacheflow_ray.errors import ServiceError
from cacheflow_ray.service.client.channel import Connection, may_be_back
from cacheflow_ray.service.client.methods import ASK
from cacheflow_ray.service.client.retry import Patience
from cacheflow_ray.service.messages import read_answer
from cacheflow_ray.service.status import retry_after_s
from cacheflow_ray.service.v1.answer_pb2 import AskRequest, AskResponse


class AsyncAnswer:
    """Iterate it for the text as it is made, then read `result`; or `await read()` for all at once.

    It is asked when the first piece is waited for. Asked again while the service is unavailable and time is left, until
    the first piece has come: from then on a lost connection is an error, for another answer may be worded otherwise.
    """

    def __init__(self, connection: Connection, request: AskRequest, *, timeout_s: float) -> None:
        self._connection, self._request, self._timeout_s = connection, request, timeout_s
        self._answered: Answered | None = None
        self._pieces = self._run()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def read(self) -> AnswerResult:
        """The whole answer; waits for what has not been iterated yet. Raises what ended it early."""
        async for _ in self._pieces:
            pass
        return self.result

    @property
    def result(self) -> AnswerResult:
        """The whole answer, once it has been iterated to its end. Raises ServiceError before."""
        return self._whole.result

    @property
    def stream(self) -> str:
        """The stream that answered; as `result`."""
        return self._whole.stream_id

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The evidence with its pictures; as `result`."""
        return self._whole.moments

    async def close(self) -> None:
        """Stop generating. What was not iterated yet is lost."""
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _whole(self) -> Answered:
        if self._answered is None:
            raise ServiceError("the answer has not come to its end: iterate it, or await read()")
        return self._answered

    async def _run(self) -> AsyncGenerator[str, None]:
        patience, has_begun = Patience(self._timeout_s), False
        while self._answered is None:
            try:
                async with aclosing(self._attempt(patience.left_s)) as pieces:
                    async for piece in pieces:
                        has_begun = True
                        yield piece
            except aio.AioRpcError as lost:
                error = self._connection.told(lost)
                if has_begun or not may_be_back(lost):
                    raise error from None
                await patience.pause(error, retry_after_s(lost))

    async def _attempt(self, timeout_s: float) -> AsyncGenerator[str, None]:
        stub = self._connection.channel.unary_stream(
            ASK.path, request_serializer=AskRequest.SerializeToString, response_deserializer=AskResponse.FromString
        )
        call = stub(self._request, timeout=timeout_s, metadata=self._connection.metadata)
        try:
            async for response in call:
                if response.WhichOneof("message") == "text":
                    yield response.text
                else:
                    self._answered = read_answer(response.answer)
        finally:
            call.cancel()
        if self._answered is None:
            raise ServiceError("the service ended an answer without saying so")
