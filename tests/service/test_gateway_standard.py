"""Reflection, health, metrics, request ids and log lines."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from typing import Any

import pytest
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from prometheus_client.parser import text_string_to_metric_families

from cacheflow_ray.actors.api import ActorStatus, ClusterStatus
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.service.metrics import ActorMetrics
from cacheflow_ray.service.routes import SERVICES
from cacheflow_ray.service.v1.answer_pb2 import AskRequest
from cacheflow_ray.service.v1.stream_pb2 import CreateStreamRequest, GetStreamRequest, ListStreamsRequest, Stream
from tests.service.cluster_double import MemoryCluster
from tests.service.serving import FINISH, PICTURE, framed, in_loop, refused, serving, started

GET = GetStreamRequest(name="door")


@in_loop
async def test_reflection_lists_and_describes_every_service() -> None:
    """What `grpcurl list` and `grpcurl describe` ask."""
    async with serving() as served:
        names = {service.full_name for service in SERVICES}
        requests = [ServerReflectionRequest(list_services="")]
        requests += [ServerReflectionRequest(file_containing_symbol=name) for name in sorted(names)]
        call = ServerReflectionStub(served.channel).ServerReflectionInfo(iter(requests))
        listed, *described = [response async for response in call]
        assert {service.name for service in listed.list_services_response.service} == names | {
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        files = DescriptorDatabase()
        for response in described:
            for data in response.file_descriptor_response.file_descriptor_proto:
                files.Add(FileDescriptorProto.FromString(data))
        pool = DescriptorPool(files)
        for service in SERVICES:
            found = pool.FindServiceByName(service.full_name)
            assert [method.name for method in found.methods] == [method.name for method in service.methods]


@in_loop
async def test_every_service_is_healthy_and_others_are_not_known() -> None:
    async with serving() as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        for name in ("", *(service.full_name for service in SERVICES)):
            response = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        other = health_pb2.HealthCheckRequest(service="cacheflow.v1.OtherService")
        assert (await refused(health.Check(other)))[0] is StatusCode.NOT_FOUND


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("", False), ("two words", False), ("x" * 129, False)])
@in_loop
async def test_a_call_has_an_id_its_own_or_a_new_one(given: str, kept: bool) -> None:
    async with serving() as served:
        await served.call("CreateStream", CreateStreamRequest(stream=Stream(name="door")))
        call = served.channel.unary_unary("/cacheflow.v1.StreamService/GetStream")(
            GET.SerializeToString(), metadata=(("x-request-id", given),)
        )
        told = {
            dict(await metadata)["x-request-id"] for metadata in (call.initial_metadata(), call.trailing_metadata())
        }
        assert len(told) == 1
        assert (told == {given}) is kept and all(told)


@in_loop
async def test_a_failure_nobody_thought_of_tells_its_id_and_logs_why(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        served.cluster.errors.append(ZeroDivisionError("the secret of it"))
        call = served.start("GetStream", GET)
        code, status = await refused(call)
        request_id = dict(await call.trailing_metadata())["x-request-id"]
        assert code is StatusCode.INTERNAL
        assert request_id in status.message and "secret" not in str(status)
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.exc_info is not None and request_id in record.getMessage()
        assert "the secret of it" in caplog.text


@pytest.mark.parametrize("as_json", [False, True])
@in_loop
async def test_a_call_is_one_line_in_the_log(as_json: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cacheflow_ray.service")
    async with serving(log_json=as_json) as served:
        served.cluster.errors.append(ZeroDivisionError("two\nlines"))
        await refused(served.call("GetStream", GET))
        await refused(served.call("GetStream", GET))
    lines = [record.getMessage() for record in caplog.records if "GetStream" in record.getMessage()]
    assert len(lines) == 2
    if as_json:
        failed, missed = map(json.loads, lines)
        assert (missed["code"], missed["tenant"], missed["method"]) == (
            "NOT_FOUND",
            "",
            "/cacheflow.v1.StreamService/GetStream",
        )
        assert missed["ms"] >= 0 and "ZeroDivisionError" in failed["traceback"]
        assert "\n" not in lines[0]
    else:
        assert "code=INTERNAL" in lines[0] and "error=ZeroDivisionError: two lines" in lines[0]
        assert "code=NOT_FOUND" in lines[1]


async def scrape(port: int | None) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples at `/metrics` by name and labels."""
    url = f"http://127.0.0.1:{port}/metrics"
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


@in_loop
async def test_metrics_tell_of_calls_and_actors() -> None:
    async with serving(metrics_port=0) as served:
        push = served.start("Ingest")
        for request in (started("door"), framed(0), framed(1), FINISH):
            await push.write(request)
        while await push.read() is not aio.EOF:
            pass
        await served.call("Ask", AskRequest(streams=["door"], question="?"))
        await refused(served.call("GetStream", GetStreamRequest(name="gate")))
        waiting = served.start("Ingest")
        await waiting.write(started("gate"))
        await waiting.read()
        samples = await scrape(served.gateway.metrics_port)

    def sample(name: str, **labels: str) -> Any:
        return samples.get((name, frozenset(labels.items())))

    ingest, ask = "/cacheflow.v1.IngestService/Ingest", "/cacheflow.v1.AnswerService/Ask"
    get = "/cacheflow.v1.StreamService/GetStream"
    assert sample("cacheflow_calls_total", method=ingest, code="OK") == 1
    assert sample("cacheflow_calls_total", method=get, code="NOT_FOUND") == 1
    assert sample("cacheflow_calls_in_flight", method=ingest) == 1
    assert sample("cacheflow_call_seconds_count", method=ask) == 1
    assert sample("cacheflow_first_token_seconds_count") == 1
    assert sample("cacheflow_received_frames_total") == 2
    assert sample("cacheflow_received_bytes_total") == 2 * len(PICTURE)
    assert sample("frames_total", actor="encoder-0") == sample("frames_total", actor="store-0") == 7
    assert sample("step_seconds", actor="encoder-0") == 0.5
    assert sample("cacheflow_actor_up", actor="store-0", role="store") == 1


@in_loop
async def test_a_cluster_that_cannot_be_asked_leaves_the_gateways_own_metrics() -> None:
    cluster = MemoryCluster()
    cluster.errors.append(ZeroDivisionError("the poll's"))
    async with serving(cluster, metrics_port=0) as served:
        await served.call("ListStreams", ListStreamsRequest())
        samples = await scrape(served.gateway.metrics_port)
        assert any(name == "cacheflow_calls_total" for name, _ in samples)


@in_loop
async def test_a_metrics_port_that_is_taken_is_named() -> None:
    async with serving(metrics_port=0) as served:
        with pytest.raises(InvalidConfig, match="metrics_port"):
            async with serving(metrics_port=served.gateway.metrics_port):
                pass


def test_one_actors_nonsense_hides_no_others_numbers() -> None:
    metrics = ActorMetrics()
    texts = {"a": "ok 1.0\n", "b": "ok 2.0\nnonsense {{{\n", "c": "\0\xff", "d": "ok 3.0\n"}
    actors = [ActorStatus(name=name, role="store", alive=True, exposition=text) for name, text in texts.items()]
    metrics.update(ClusterStatus(actors=tuple(actors), streams=()))
    merged = {family.name: family for family in metrics.collect()}["ok"]
    assert {sample.labels["actor"]: sample.value for sample in merged.samples} == {"a": 1.0, "b": 2.0, "d": 3.0}
