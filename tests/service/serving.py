"""A gateway on a free port of this machine, and a channel to it, for tests that are coroutines."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio
from grpc_status import rpc_status
from PIL import Image

from cacheflow_ray.config import ServiceOptions
from cacheflow_ray.service.gateway import Gateway
from cacheflow_ray.service.routes import SERVICES
from cacheflow_ray.service.v1 import ingest_pb2
from tests.service.cluster_double import MemoryCluster

P = ParamSpec("P")

#: By name: GetStream, Ask, ...
METHODS: dict[str, MethodDescriptor] = {method.name: method for service in SERVICES for method in service.methods}


def in_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a test that is a coroutine; one that hangs fails."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(test(*args, **kwargs), 60)

        asyncio.run(bounded())

    return run


@dataclass(frozen=True)
class Served:
    """A gateway, its cluster, and a client's view of it. `metadata` goes with every call."""

    cluster: MemoryCluster
    gateway: Gateway
    channel: aio.Channel
    metadata: tuple[tuple[str, str], ...] = ()

    def start(self, name: str, request: Message | bytes | None = None, *, timeout: float | None = None) -> Any:
        """A call under way, by the method's name; bytes are sent as they are. Ingest takes no request."""
        method = METHODS[name]
        kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}
        make = getattr(self.channel, kinds[method.client_streaming, method.server_streaming])
        stub = make(path_of(method), request_serializer=_serialized, response_deserializer=_reader(method))
        arguments = [] if method.client_streaming else [request if request is not None else b""]
        return stub(*arguments, timeout=timeout, metadata=self.metadata)

    async def call(self, name: str, request: Message | bytes | None = None, *, timeout: float | None = 10) -> Any:
        """The response, or all of them."""
        call = self.start(name, request, timeout=timeout)
        if METHODS[name].client_streaming:
            if request is not None:
                await call.write(request)
            await call.done_writing()
        if METHODS[name].server_streaming:
            return [response async for response in call]
        return await call

    def with_key(self, key: str) -> Served:
        return Served(self.cluster, self.gateway, self.channel, (("authorization", f"Bearer {key}"),))


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _serialized(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _reader(method: MethodDescriptor) -> Callable[[bytes], Message]:
    return GetMessageClass(method.output_type).FromString


@asynccontextmanager
async def serving(
    cluster: MemoryCluster | None = None, credentials: grpc.ChannelCredentials | None = None, **options: Any
) -> AsyncIterator[Served]:
    """Ends with nothing under way."""
    cluster = cluster or MemoryCluster()
    gateway = Gateway(cluster, ServiceOptions(**{"port": 0} | options))
    port = await gateway.start()
    address = f"localhost:{port}" if credentials else f"127.0.0.1:{port}"
    channel = aio.secure_channel(address, credentials) if credentials else aio.insecure_channel(address)
    try:
        async with channel:
            yield Served(cluster, gateway, channel)
    finally:
        await gateway.stop()


async def refused(call: Awaitable[Any]) -> tuple[StatusCode, Status]:
    """How a call that must not succeed ended, and the details."""
    try:
        response = await call
    except aio.AioRpcError as error:
        return error.code(), rpc_status.from_call(error) or Status(message=error.details())
    raise AssertionError(f"it succeeded: {response}")


async def until(condition: Callable[[], bool], within_s: float = 10) -> None:
    """Wait for what happens at the server."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def picture(width: int = 8, height: int = 6, kind: str = "JPEG") -> bytes:
    """A whole encoded image."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, kind)
    return file.getvalue()


PICTURE = picture()


def started(stream: str = "door", **fields: Any) -> ingest_pb2.IngestRequest:
    return ingest_pb2.IngestRequest(start=ingest_pb2.IngestStart(stream=stream, **fields))


def framed(seq: int, data: bytes = PICTURE, **fields: Any) -> ingest_pb2.IngestRequest:
    frame = ingest_pb2.Frame(**{"seq": seq, "timestamp_s": float(seq), "data": data} | fields)
    return ingest_pb2.IngestRequest(frame=frame)


def chunked(offset: int, data: bytes) -> ingest_pb2.IngestRequest:
    return ingest_pb2.IngestRequest(chunk=ingest_pb2.ContainerChunk(offset=offset, data=data))


FINISH = ingest_pb2.IngestRequest(finish=ingest_pb2.IngestFinish())
