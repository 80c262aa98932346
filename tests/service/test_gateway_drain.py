"""Closing without breaking anything off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cacheflow_ray.config import ServiceOptions
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.service.gateway import Gateway
from cacheflow_ray.service.routes import SERVICES
from cacheflow_ray.service.v1.answer_pb2 import AskRequest
from cacheflow_ray.service.v1.stream_pb2 import CreateStreamRequest, ListStreamsRequest, Stream
from tests.service.cluster_double import MemoryCluster
from tests.service.serving import FINISH, Served, framed, in_loop, refused, serving, started, until

QUESTION = AskRequest(streams=["door"], question="what came by?")
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def can_be_retried(status: Status) -> bool:
    return any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)


async def rest_of(call: Any) -> list[Any]:
    responses = []
    while (response := await call.read()) is not aio.EOF:
        responses.append(response)
    return responses


async def pushing(served: Served) -> Any:
    """An ingest with three frames that are not durable yet."""
    call = served.start("Ingest")
    for request in (started("door"), framed(0), framed(1), framed(2)):
        await call.write(request)
    await call.read()
    received = "cacheflow_received_frames_total"
    await until(lambda: served.gateway.metrics.registry.get_sample_value(received) == 3)
    return call


@in_loop
async def test_what_is_under_way_ends_and_nothing_new_begins() -> None:
    async with serving() as served:
        await served.call("CreateStream", CreateStreamRequest(stream=Stream(name="door")))
        served.cluster.gate.clear()
        push = await pushing(served)
        answer = asyncio.ensure_future(served.call("Ask", QUESTION))
        await until(lambda: served.cluster.num_answering == 1)

        draining = asyncio.ensure_future(served.gateway.drain(10))
        await asyncio.sleep(0.1)
        code, status = await refused(served.call("ListStreams", ListStreamsRequest()))
        assert (code, can_be_retried(status)) == (StatusCode.UNAVAILABLE, True)
        health = health_pb2_grpc.HealthStub(served.channel)
        for name in ("", *(service.full_name for service in SERVICES)):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == NOT_SERVING
        assert not draining.done()

        served.cluster.gate.set()
        assert (await answer)[-1].answer.text == "two red cars"
        code, status = await refused(rest_of(push))
        assert (code, can_be_retried(status)) == (StatusCode.UNAVAILABLE, True)
        assert served.cluster.sessions[0].num_closed == 1
        assert len(served.cluster.streams["door"].frames) == 3
        await draining
        assert (await refused(served.call("ListStreams")))[0] is StatusCode.UNAVAILABLE


@in_loop
async def test_a_push_gets_its_acks_before_it_is_sent_away() -> None:
    async with serving() as served:
        served.cluster.gate.clear()
        push = await pushing(served)
        draining = asyncio.ensure_future(served.gateway.drain(10))
        await asyncio.sleep(0.05)
        served.cluster.gate.set()
        acked = 0
        with pytest.raises(aio.AioRpcError) as raised:
            while (response := await push.read()) is not aio.EOF:
                acked = response.ack.next_seq
        assert (acked, raised.value.code()) == (3, StatusCode.UNAVAILABLE)
        await draining


@in_loop
async def test_a_push_that_finishes_meanwhile_is_finished() -> None:
    async with serving() as served:
        served.cluster.gate.clear()
        push = await pushing(served)
        await push.write(FINISH)
        await asyncio.sleep(0.1)
        draining = asyncio.ensure_future(served.gateway.drain(10))
        await asyncio.sleep(0.05)
        served.cluster.gate.set()
        assert (await rest_of(push))[-1].finished.stream.complete
        await draining


@in_loop
async def test_an_idle_push_is_sent_away_at_once() -> None:
    async with serving() as served:
        call = served.start("Ingest")
        await call.write(started("door"))
        await call.read()
        await served.gateway.drain(10)
        assert (await refused(rest_of(call)))[0] is StatusCode.UNAVAILABLE
        assert served.cluster.sessions[0].num_closed == 1


@in_loop
async def test_what_takes_too_long_is_broken_off_and_closed() -> None:
    async with serving() as served:
        await served.call("CreateStream", CreateStreamRequest(stream=Stream(name="door")))
        served.cluster.gate.clear()
        await pushing(served)
        answer = served.start("Ask", QUESTION)
        await until(lambda: served.cluster.num_answering == 1)
        await served.gateway.drain(0.2)
        assert (served.cluster.num_answering, served.cluster.sessions[0].num_closed) == (0, 1)
        assert (await refused(rest_of(answer)))[0] in (StatusCode.CANCELLED, StatusCode.UNAVAILABLE)


@in_loop
async def test_a_watcher_of_health_does_not_hold_the_gateway_up() -> None:
    async with serving() as served:
        watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        async with asyncio.timeout(5):
            await served.gateway.drain(60)
        try:
            assert (await watch.read()).status == NOT_SERVING
        except aio.AioRpcError as error:  # the connection's end overtook the word
            assert error.code() in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)


@in_loop
async def test_stopping_twice_and_before_starting_does_nothing() -> None:
    async with serving() as served:
        await served.gateway.drain(1)
        await served.gateway.drain(1)
        await served.gateway.stop()
    await Gateway(MemoryCluster(), ServiceOptions()).drain()


@in_loop
async def test_a_port_that_is_taken_is_named() -> None:
    async with serving() as served:
        with pytest.raises(InvalidConfig, match=f"port: 127.0.0.1:{served.gateway.port} cannot be used"):
            async with serving(port=served.gateway.port):
                pass
