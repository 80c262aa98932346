"""Whatever is sent, the service answers with a status that fits, and goes on."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from contextlib import suppress
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
MALFORMED = (b"\xff", b"\x0a\x05ab", b"\x07", b"\x0a\xff\xff\xff\xff\x0f")

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

        @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
        @given(requests)
        def sent(messages: list[Message]) -> None:
            runner.run(_converse(served, method, messages))
            told = _codes_told(served)
            assert not told.keys() & _OURS_TO_MEND

        try:
            sent()
        finally:
            runner.run(entered.__aexit__(None, None, None))


def _codes_told(served: Served) -> Counter[StatusCode]:
    """As the gateway counts them: a client that still writes when its call ends may read INTERNAL of its own gRPC."""
    (calls,) = (family for family in served.gateway.metrics.registry.collect() if family.name == "cacheflow_calls")
    codes = Counter[StatusCode]()
    for sample in calls.samples:
        if sample.name == "cacheflow_calls_total":
            codes[StatusCode[sample.labels["code"]]] += int(sample.value)
    return codes


async def _converse(served: Served, method: str, messages: list[Message]) -> None:
    """Send all of them, and read all that comes back."""
    call = served.start(method, *([] if method == "Ingest" else messages), timeout=10)

    async def write() -> None:
        with suppress(aio.AioRpcError, asyncio.InvalidStateError):
            for message in messages:
                await call.write(message)
            await call.done_writing()

    async def read() -> None:
        with suppress(aio.AioRpcError):
            if method == "Ingest":
                while await call.read() is not aio.EOF:
                    pass
            elif METHODS[method].server_streaming:
                async for _ in call:
                    pass
            else:
                await call

    await asyncio.gather(*([write()] if method == "Ingest" else []), read())


def _noise(random_: random.Random) -> bytes:
    """Anything, or HTTP/2 that goes astray after its first words."""
    noise = random_.randbytes(random_.randrange(1, 400))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    frame = random_.randrange(64).to_bytes(3, "big") + random_.randbytes(1)[:1] + random_.randbytes(5)
    return random_.choice((noise, preface + noise, preface + bytes(3) + b"\4\0\0\0\0\0" + frame + noise))


async def _pelt(port: int, count: int, at_once: int = 16) -> int:
    """Connect so often, each time with other noise; how often the server was there and hung up."""
    random_ = random.Random(7)

    async def one() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = b""
        try:
            writer.write(_noise(random_))
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 5)
        except OSError:
            pass
        finally:
            writer.close()
        return bool(answer)

    answered = 0
    for _ in range(0, count, at_once):
        answered += sum(await asyncio.gather(*(one() for _ in range(at_once))))
    return answered


async def _survives_noise(count: int) -> None:
    async with serving() as served:
        assert await _pelt(served.gateway.port, count) >= count
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
