"""A server's last word, heard by a client that is still writing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import StatusCode, aio

from cacheflow_ray.service.client.ended import Ending
from cacheflow_ray.service.status import error_of, status_of
from memory_store.errors import EpochFenced

ROUNDS = 60
PIECE = b"x" * (64 << 10)


class Refusing(grpc.GenericRpcHandler):
    """Ends every stream at its second message."""

    def service(self, _: Any) -> grpc.RpcMethodHandler:
        async def refuse(requests: AsyncIterator[bytes], context: aio.ServicerContext[Any, Any]) -> None:
            await anext(requests)
            await anext(requests)
            status = status_of(EpochFenced("another has it", stream_id="s"))
            await context.abort(status.code, status.details, status.trailing_metadata)

        return grpc.stream_stream_rpc_method_handler(refuse)


async def last_word(channel: aio.Channel) -> tuple[aio.AioRpcError, aio.AioRpcError]:
    """What reading raised, and what ended the call."""
    call = channel.stream_stream("/a/b")()
    ending = Ending(call)

    async def write() -> None:
        try:
            while True:
                await call.write(PIECE)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return

    writing = asyncio.create_task(write())
    try:
        await call.read()
        raise AssertionError("it was not ended")
    except aio.AioRpcError as raised:
        return raised, await ending.cause(raised)
    finally:
        await writing


def test_it_is_heard_whatever_became_of_the_write() -> None:
    async def main() -> list[tuple[aio.AioRpcError, aio.AioRpcError]]:
        server = aio.server()
        server.add_generic_rpc_handlers((Refusing(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ends = [await last_word(channel) for _ in range(ROUNDS)]
        await server.stop(None)
        return ends

    ends = asyncio.run(main())
    print(f"grpc.aio lost {sum(raised.code() is StatusCode.INTERNAL for raised, _ in ends)} of {ROUNDS} statuses")
    for _, cause in ends:
        error = error_of(cause)
        assert isinstance(error, EpochFenced) and error.ids == {"stream_id": "s"}


def test_a_connection_that_broke_is_told_as_it_was_raised() -> None:
    async def main() -> StatusCode:
        async with aio.insecure_channel("127.0.0.1:1") as channel:
            raised, cause = await last_word(channel)
            assert raised is cause
            return cause.code()

    assert asyncio.run(main()) is StatusCode.UNAVAILABLE
