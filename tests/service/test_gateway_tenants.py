"""Who may call, and that a tenant sees its own streams only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from grpc import StatusCode

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.service.keys import KeyRing
from cacheflow_ray.service.v1 import admin_pb2, answer_pb2, library_pb2, search_pb2, stream_pb2
from tests.service.serving import FINISH, METHODS, Served, framed, in_loop, refused, serving, started

HASHED = f"sha256:{hashlib.sha256(b'key-of-zeta').hexdigest()}"
KEYS = f"""
[tenants.acme]
keys = ["key-of-acme", "another-key-of-acme"]
max_streams = 2
max_questions = 1

[tenants.zeta]
keys = ["{HASHED}"]

[tenants.admin]
keys = ["key-of-admin"]
"""

#: A request of every method that names a stream.
NAMED: dict[str, Callable[[str], Message]] = {
    "GetStream": lambda name: stream_pb2.GetStreamRequest(name=name),
    "UpdateStream": lambda name: stream_pb2.UpdateStreamRequest(stream=stream_pb2.Stream(name=name, labels={"a": "b"})),
    "DeleteStream": lambda name: stream_pb2.DeleteStreamRequest(name=name),
    "Ask": lambda name: answer_pb2.AskRequest(streams=[name], question="who?"),
    "Search": lambda name: search_pb2.SearchRequest(streams=[name], text="who"),
}

#: One of every other method.
OTHERS: dict[str, Message] = {
    "CreateStream": stream_pb2.CreateStreamRequest(stream=stream_pb2.Stream(name="door")),
    "ListStreams": stream_pb2.ListStreamsRequest(),
    "Ingest": started("door"),
    "CreateIndexJob": library_pb2.CreateIndexJobRequest(sources=["videos"], job_id="door"),
    "ListIndexFiles": library_pb2.ListIndexFilesRequest(),
    "ListOperations": operations_pb2.ListOperationsRequest(),
    "GetOperation": operations_pb2.GetOperationRequest(name="operations/door"),
    "WaitOperation": operations_pb2.WaitOperationRequest(name="operations/door"),
    "CancelOperation": operations_pb2.CancelOperationRequest(name="operations/door"),
    "DeleteOperation": operations_pb2.DeleteOperationRequest(name="operations/door"),
    "GetStatus": admin_pb2.GetStatusRequest(),
    "Scale": admin_pb2.ScaleRequest(),
}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(KEYS)
    return path


def test_every_method_is_here() -> None:
    assert METHODS.keys() == NAMED.keys() | OTHERS.keys()


@pytest.mark.parametrize("method", sorted(METHODS))
@in_loop
async def test_without_a_key_nothing_is_done(method: str, keys: Path) -> None:
    request = NAMED[method]("door") if method in NAMED else OTHERS[method]
    async with serving(keys=keys) as served:
        stale = [(), (("authorization", "Bearer nobodys"),), (("authorization", "Basic key-of-acme"),)]
        for metadata in [*stale, (("x-api-key", HASHED),), (("x-api-key", ""),)]:
            caller = Served(served.cluster, served.gateway, served.channel, metadata)
            assert (await refused(caller.call(method, request)))[0] is StatusCode.UNAUTHENTICATED
        assert not served.cluster.streams and not served.cluster.index.started


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Bearer key-of-acme"),),
        (("authorization", "bearer another-key-of-acme"),),
        (("x-api-key", "key-of-acme"),),
    ],
)
@in_loop
async def test_a_key_may_be_brought_either_way(metadata: Any, keys: Path) -> None:
    async with serving(keys=keys) as served:
        caller = Served(served.cluster, served.gateway, served.channel, metadata)
        assert (await caller.call("CreateStream", OTHERS["CreateStream"])).stream.name == "door"
        assert list(served.cluster.streams) == ["acme:door"]


@pytest.mark.parametrize("method", sorted(NAMED))
@pytest.mark.parametrize("name", ["door", "acme:door"])
@in_loop
async def test_another_tenants_stream_is_not_there(method: str, name: str, keys: Path) -> None:
    async with serving(keys=keys) as served:
        acme, zeta = served.with_key("key-of-acme"), served.with_key("key-of-zeta")
        await acme.call("CreateStream", OTHERS["CreateStream"])
        code, status = await refused(zeta.call(method, NAMED[method](name)))
        assert code is (StatusCode.NOT_FOUND if name == "door" else StatusCode.INVALID_ARGUMENT)
        assert "acme" not in status.message.replace(name, "")
        assert not served.cluster.asked
        await acme.call(method, NAMED[method]("door"))


@in_loop
async def test_two_tenants_may_give_the_same_name(keys: Path) -> None:
    async with serving(keys=keys) as served:
        for key in ("key-of-acme", "key-of-zeta"):
            tenant = served.with_key(key)
            call = tenant.start("Ingest")
            for request in (started("door"), framed(0), FINISH):
                await call.write(request)
            while (response := await call.read()).WhichOneof("message") != "finished":
                pass
            assert response.finished.stream.name == "door"
            page = await tenant.call("ListStreams", OTHERS["ListStreams"])
            assert [(stream.name, stream.totals.frames) for stream in page.streams] == [("door", 1)]
        assert sorted(served.cluster.streams) == ["acme:door", "zeta:door"]
        assert [kept.new.tenant for kept in served.cluster.streams.values()] == ["acme", "zeta"]


@pytest.mark.parametrize("method", ["GetStatus", "Scale"])
@in_loop
async def test_only_operators_see_and_scale_the_service(method: str, keys: Path) -> None:
    async with serving(keys=keys) as served:
        code, _ = await refused(served.with_key("key-of-acme").call(method, OTHERS[method]))
        assert code is StatusCode.PERMISSION_DENIED
        await served.with_key("key-of-admin").call(method, OTHERS[method])


@in_loop
async def test_a_tenant_has_limits_of_its_own(keys: Path) -> None:
    async with serving(keys=keys) as served:
        acme = served.with_key("key-of-acme")
        for name, allowed in (("a", True), ("b", True), ("c", False)):
            call = acme.call("CreateStream", stream_pb2.CreateStreamRequest(stream=stream_pb2.Stream(name=name)))
            if allowed:
                await call
            else:
                assert (await refused(call))[0] is StatusCode.RESOURCE_EXHAUSTED
        code, _ = await refused(acme.call("Ingest", started("c")))
        assert code is StatusCode.RESOURCE_EXHAUSTED
        await acme.call("Ingest", started("a"))


@in_loop
async def test_without_keys_streams_of_tenants_are_not_shown() -> None:
    """Such are left where there were keys before."""
    async with serving() as served:
        await served.call("CreateStream", OTHERS["CreateStream"])
        kept = served.cluster.streams["door"]
        served.cluster.streams["acme:door"] = type(kept)(type(kept.new)(stream_id="acme:door", tenant="acme"))
        page = await served.call("ListStreams", OTHERS["ListStreams"])
        assert [stream.name for stream in page.streams] == ["door"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("tenants = 3", "tables"),
        ("[tenant.acme]\nkeys = ['x']", "tables"),
        ("[tenants.acme]\nkeys = []", "keys: allowed: a list of one key or more"),
        ("[tenants.acme]\nkeys = 'secret-key'", "keys: allowed: a list of one key or more"),
        ("[tenants.acme]\nkeys = ['']", "empty"),
        ("[tenants.acme]\nkeys = ['sha256:12']", "SHA-256"),
        ("[tenants.acme]\nkeys = ['secret-key']\nmax_streams = 0", "max_streams: allowed: 1 or more"),
        ("[tenants.acme]\nkeys = ['secret-key']\nstreams = 1", "streams"),
        ("[tenants.acme]\nkeys = ['secret-key']\n[tenants.zeta]\nkeys = ['secret-key']", "twice"),
        ("[tenants.'no tenant']\nkeys = ['secret-key']", "no tenant"),
        ("[[", "no TOML"),
    ],
)
def test_a_file_of_keys_that_is_none_is_refused_without_telling_keys(content: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(content)
    with pytest.raises(InvalidConfig, match=what) as raised:
        KeyRing.load(path)
    assert "secret-key" not in str(raised.value)


def test_a_missing_file_of_keys_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"none\.toml cannot be read"):
        KeyRing.load(tmp_path / "none.toml")
