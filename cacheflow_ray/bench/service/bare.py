"""A stream of gRPC with nothing behind it, and a client that keeps a window of messages on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc
from grpc import aio

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

#: Methods of the bare server: the message itself comes back, or a word.
SAME, WORD = "/bench.Bare/Same", "/bench.Bare/Word"


class BareServer:
    """See `actors.host.Server`."""

    def __init__(self) -> None:
        self._server: aio.Server | None = None

    async def start(self) -> int:
        self._server = server = aio.server(options=_OPTIONS)
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            path.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(handler)
            for path, handler in ((SAME, _same), (WORD, _word))
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Bare", handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return port

    async def drain(self, grace_s: float | None = None) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)

    def is_worn(self) -> bool:
        return False


async def _same(requests: AsyncIterator[bytes], context: Any) -> None:
    async for request in requests:
        await context.write(request)


async def _word(requests: AsyncIterator[bytes], context: Any) -> None:
    async for _ in requests:
        await context.write(b"taken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volley:
    """Calls at once, each with the same message again and again.

    Args:
        method: its path.
        openings: the first message of each call, which is answered before more is sent; none: there is no such thing.
        message: sent `num_messages` times in each call.
        window: messages on their way in each call.
        granted: how many messages an answer says have arrived; picklable.
    """

    address: str
    method: str
    message: bytes
    num_messages: int
    window: int
    granted: Callable[[bytes], int]
    channels: int
    openings: tuple[bytes, ...] = ()


def one(answer: bytes) -> int:
    """Every answer is to one message."""
    return 1


def fire(volley: Volley) -> float:
    """Seconds from the first message to the last one's answer."""
    return asyncio.run(_fire(volley))


async def _fire(volley: Volley) -> float:
    async with aio.insecure_channel(volley.address, options=_OPTIONS) as channel:
        calls: list[Any] = [channel.stream_stream(volley.method)() for _ in range(volley.channels)]
        for call, opening in zip(calls, volley.openings, strict=False):
            await call.write(opening)
            await call.read()
        started = perf_counter()
        await asyncio.gather(*[_converse(call, volley) for call in calls])
        seconds = perf_counter() - started
        for call in calls:
            await call.done_writing()
            while await call.read() is not aio.EOF:
                pass
        return seconds


async def _converse(call: Any, volley: Volley) -> None:
    room = asyncio.Semaphore(volley.window)

    async def listen() -> None:
        left = volley.num_messages
        while left:
            arrived = volley.granted(await call.read())
            left -= arrived
            for _ in range(arrived):
                room.release()

    listening = asyncio.create_task(listen())
    for _ in range(volley.num_messages):
        await room.acquire()
        await call.write(volley.message)
    await listening
