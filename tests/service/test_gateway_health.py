"""Health on a port of its own, in the clear, for probes that can do no TLS."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cacheflow_ray.config import TlsOptions
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.service.routes import SERVICES
from cacheflow_ray.service.v1.stream_pb2 import ListStreamsRequest
from tests.service.serving import Served, in_loop, refused, serving
from tests.service.test_gateway_drain import pushing, rest_of
from tests.service.test_gateway_tls import Authority, client

HealthStatus = health_pb2.HealthCheckResponse


async def told(port: int | None, service: str = "") -> int:
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int((await health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)).status)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: it makes certificates")
@in_loop
async def test_health_is_told_in_the_clear_and_nothing_else_is(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("server")
    async with serving(tls=TlsOptions(cert=cert, key=key), credentials=client(authority), health_port=0) as served:
        for name in ("", *(service.full_name for service in SERVICES)):
            assert await told(served.gateway.health_port, name) == HealthStatus.SERVING
        async with aio.insecure_channel(f"127.0.0.1:{served.gateway.health_port}") as channel:
            code, _ = await refused(
                Served(served.cluster, served.gateway, channel).call("ListStreams", ListStreamsRequest())
            )
        assert code is StatusCode.UNIMPLEMENTED


@in_loop
async def test_a_gateway_that_closes_says_so_until_it_is_closed() -> None:
    async with serving(health_port=0) as served:
        served.cluster.gate.clear()
        push = await pushing(served)
        draining = asyncio.ensure_future(served.gateway.drain(10))
        await asyncio.sleep(0.1)
        assert await told(served.gateway.health_port) == HealthStatus.NOT_SERVING
        served.cluster.gate.set()
        await refused(rest_of(push))
        await draining
        with pytest.raises(aio.AioRpcError):
            await told(served.gateway.health_port)


@in_loop
async def test_without_the_option_there_is_no_such_port_and_a_taken_one_is_named() -> None:
    async with serving(health_port=0) as served:
        with pytest.raises(InvalidConfig, match="health_port"):
            async with serving(health_port=served.gateway.health_port):
                pass
    async with serving() as served:
        assert served.gateway.health_port is None
