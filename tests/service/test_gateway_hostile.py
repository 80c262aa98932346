"""Whatever is sent, the service answers with a status that fits, and goes on."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode, aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from cacheflow_ray.config import ServiceLimits
from cacheflow_ray.service.v1.ingest_pb2 import IngestRequest
from cacheflow_ray.service.v1.stream_pb2 import CreateStreamRequest, ListStreamsRequest, Stream
from tests.service.serving import METHODS, PICTURE, Served, in_loop, refused, serving, started

#: No field of any message begins with this byte: its wire type is none.
MALFORMED = (b"\xff", b"\x0a\x05ab", b"\x07", b"\x0a\xff\xff\xff\xff\x0f", b"\0" * 20)

#: What no request may be answered with, however it looks.
_OURS_TO_MEND = (StatusCode.UNKNOWN, StatusCode.INTERNAL, StatusCode.UNIMPLEMENTED, StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("method", sorted(METHODS))
@in_loop
async def test_bytes_that_are_no_message_are_an_invalid_argument(method: str) -> None:
    async with serving() as served:
        for data in MALFORMED:
            assert (await refused(served.call(method, data)))[0] is StatusCode.INVALID_ARGUMENT


@in_loop
async def test_bytes_that_are_no_message_end_a_push_that_has_begun() -> None:
    async with serving() as served:
        call = served.start("Ingest")
        await call.write(started("door"))
        await call.read()
        await call.write(b"\xff")
        assert (await refused(call.read()))[0] is StatusCode.INVALID_ARGUMENT


def any_of(descriptor: Descriptor, depth: int = 3) -> SearchStrategy[Message]:
    """Messages of a kind with any of their fields, valid or not as the service sees it."""
    fields = {
        field.name: _values(field, depth)
        for field in descriptor.fields
        if depth or field.type != FieldDescriptor.TYPE_MESSAGE
    }
    kind = GetMessageClass(descriptor)
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _made(kind, values))


def _made(kind: type[Message], values: dict[str, Any]) -> Message:
    return kind(**values)


_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_STRINGS = st.one_of(st.sampled_from(["door", "labels", "*", "ZG9vcg=="]), st.text(st.characters(codec="utf-8")))


def _values(field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return st.dictionaries(_STRINGS, _STRINGS, max_size=3)
    one = _value(field, depth)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _value(field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return any_of(field.message_type, depth - 1)
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return st.one_of(st.just(PICTURE), st.binary(max_size=64))
        case FieldDescriptor.CPPTYPE_STRING:
            return _STRINGS
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.integers(0, 6)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats()
    least, most = _INTEGERS[field.cpp_type]
    return st.one_of(st.integers(0, 10), st.integers(least, most))


#: Of Ingest, a whole conversation; half of them begin as they should.
_PUSHES = st.tuples(
    st.one_of(st.just(started("door")), any_of(IngestRequest.DESCRIPTOR)),
    st.lists(any_of(IngestRequest.DESCRIPTOR), max_size=6),
).map(lambda parts: [parts[0], *parts[1]])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_any_message_gets_a_status_that_fits(method: str) -> None:
    requests = _PUSHES if method == "Ingest" else any_of(METHODS[method].input_type).map(lambda message: [message])
    with asyncio.Runner() as runner:
        entered = serving()
        served = runner.run(entered.__aenter__())
        runner.run(served.call("CreateStream", CreateStreamRequest(stream=Stream(name="door"))))

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(requests)
        def sent(messages: list[Message]) -> None:
            assert runner.run(_code(served, method, messages)) not in _OURS_TO_MEND

        try:
            sent()
        finally:
            runner.run(entered.__aexit__(None, None, None))


async def _code(served: Served, method: str, messages: list[Message]) -> StatusCode:
    call = served.start(method, *([] if method == "Ingest" else messages), timeout=10)
    if method == "Ingest":
        try:
            for message in messages:
                await call.write(message)
            await call.done_writing()
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass  # it has ended already
    code: StatusCode = await call.code()
    return code


def _noise(random_: random.Random) -> bytes:
    """Anything, or HTTP/2 that goes astray after its first words."""
    noise = random_.randbytes(random_.randrange(1, 400))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    frame = random_.randrange(64).to_bytes(3, "big") + random_.randbytes(1)[:1] + random_.randbytes(5)
    return random_.choice((noise, preface + noise, preface + bytes(3) + b"\4\0\0\0\0\0" + frame + noise))


async def _pelt(port: int, count: int, at_once: int = 16) -> None:
    """Connect so often, each time with other noise."""
    random_ = random.Random(7)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(_noise(random_))
            await writer.drain()
            if random_.random() < 0.1:
                await asyncio.wait_for(reader.read(100), 0.05)
        except (OSError, TimeoutError):
            pass
        finally:
            writer.transport.abort()

    for _ in range(0, count, at_once):
        await asyncio.gather(*(one() for _ in range(at_once)))


async def _survives_noise(count: int) -> None:
    async with serving() as served:
        await _pelt(served.gateway.port, count)
        await served.call("ListStreams", ListStreamsRequest())


@in_loop
async def test_noise_at_the_port_leaves_the_service_serving() -> None:
    await _survives_noise(3000)


@pytest.mark.slow
def test_much_noise_at_the_port_leaves_the_service_serving() -> None:
    asyncio.run(_survives_noise(100_000))


@in_loop
async def test_so_many_calls_at_a_time() -> None:
    async with serving(limits=ServiceLimits(max_calls=2)) as served:
        calls = [served.start("Ingest") for _ in range(2)]
        for call in calls:
            await call.write(started("door"))
            await call.read()
        assert (await refused(served.call("ListStreams")))[0] is StatusCode.RESOURCE_EXHAUSTED


@in_loop
async def test_a_port_is_not_shared_by_two_servers() -> None:
    """With SO_REUSEPORT two gateways could take the same port, and each get a part of the calls."""
    async with serving() as served:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError):
                other.bind(("127.0.0.1", served.gateway.port))
