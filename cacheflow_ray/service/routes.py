"""From descriptors of services to gRPC's handlers: GetStream is the servicer's `get_stream`.

unary             async def get_stream(request, call) -> response
server streaming  async def ask(request, call), yielding responses
both streaming    async def ingest(requests, call), yielding responses
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.calls import Call, CallDesk, Requests, Serve
from cacheflow_ray.service.messages import parse
from cacheflow_ray.service.v1 import admin_pb2, answer_pb2, ingest_pb2, library_pb2, search_pb2, stream_pb2

#: Every service there is.
SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for file in (stream_pb2, ingest_pb2, answer_pb2, search_pb2, library_pb2, operations_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)


def handlers_of(service: ServiceDescriptor, servicer: object, desk: CallDesk) -> grpc.GenericRpcHandler:
    """All methods of a service. A servicer that lacks one fails here."""
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        method.name: grpc.stream_stream_rpc_method_handler(
            desk.handled(f"/{service.full_name}/{method.name}", _serve(method, getattr(servicer, _snake(method.name))))
        )
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _serve(method: MethodDescriptor, function: Any) -> Serve:
    """`function` between messages as they are on the wire."""
    kind = GetMessageClass(method.input_type)

    async def unary(requests: Requests, call: Call) -> AsyncGenerator[Message, None]:
        yield await function(await _only(kind, requests), call)

    async def answering(requests: Requests, call: Call) -> AsyncGenerator[Message, None]:
        responses = function(await _only(kind, requests), call)
        try:
            async for response in responses:
                yield response
        finally:
            await responses.aclose()

    def conversing(requests: Requests, call: Call) -> AsyncGenerator[Message, None]:
        responses: AsyncGenerator[Message, None] = function(_parsed(kind, requests), call)
        return responses

    if method.client_streaming:
        return conversing
    return answering if method.server_streaming else unary


async def _only(kind: type[Message], requests: Requests) -> Message:
    """Raises: UsageError: there is none, or it is no message of the kind."""
    data = await anext(requests, None)
    if data is None:
        raise UsageError(f"the request is missing: send one {kind.DESCRIPTOR.full_name}")
    return parse(kind, data)


async def _parsed(kind: type[Message], requests: Requests) -> AsyncIterator[Message]:
    async for data in requests:
        yield parse(kind, data)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
