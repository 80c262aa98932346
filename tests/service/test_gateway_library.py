"""Searching and asking the library over real gRPC: what a scope reaches, and that it reaches no other tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc import StatusCode

from cacheflow_ray.config import ServiceLimits
from cacheflow_ray.service.v1.answer_pb2 import AskRequest
from cacheflow_ray.service.v1.common_pb2 import LibraryScope
from cacheflow_ray.service.v1.search_pb2 import SearchRequest
from cacheflow_ray.service.v1.stream_pb2 import CreateStreamRequest, Stream
from tests.service.cluster_double import MemoryCluster
from tests.service.serving import Served, in_loop, refused, serving, until

KEYS = """
[tenants.acme]
keys = ["key-of-acme"]
max_questions = 1

[tenants.zeta]
keys = ["key-of-zeta"]
"""


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(KEYS)
    return path


async def make(served: Served, *names: str, **labels: str) -> None:
    for name in names:
        await served.call("CreateStream", CreateStreamRequest(stream=Stream(name=name, labels=labels)))


async def searched(served: Served, **scope: Any) -> list[str]:
    request = SearchRequest(text="a red car", top_k=50, library=LibraryScope(**scope))
    return [moment.stream for moment in (await served.call("Search", request)).moments]


async def answering(served: Served, **scope: Any) -> str:
    request = AskRequest(question="who?", library=LibraryScope(**scope))
    return (await served.call("Ask", request))[-1].answer.stream


@in_loop
async def test_a_scope_reaches_all_streams_or_those_it_describes() -> None:
    async with serving() as served:
        await make(served, "cam-1", "cam-2", site="north")
        await make(served, "door", site="south")
        assert await searched(served) == ["cam-1", "cam-2", "door"]
        assert await searched(served, stream_glob="*-2") == ["cam-2"]
        assert await searched(served, labels={"site": "south"}) == ["door"]
        assert await answering(served, labels={"site": "south"}) == "door"
        for method, request in (
            ("Search", SearchRequest(text="?", library=LibraryScope(stream_glob="cam-1", labels={"site": "south"}))),
            ("Ask", AskRequest(question="?", library=LibraryScope(stream_glob="x*"))),
        ):
            assert (await refused(served.call(method, request)))[0] is StatusCode.FAILED_PRECONDITION


@in_loop
async def test_a_tenant_reaches_its_own_streams_only(keys: Path) -> None:
    async with serving(keys=keys) as served:
        acme, zeta = served.with_key("key-of-acme"), served.with_key("key-of-zeta")
        await make(acme, "door", "gate", site="north")
        await make(zeta, "door", "safe", site="north")
        assert await searched(acme) == ["door", "gate"]
        assert await searched(zeta, labels={"site": "north"}) == ["door", "safe"]
        assert await answering(zeta, stream_glob="[!d]*") == "safe"
        for glob in ("safe", "zeta*", "????:*"):
            request = SearchRequest(text="?", library=LibraryScope(stream_glob=glob))
            code, status = await refused(acme.call("Search", request))
            assert code in (StatusCode.FAILED_PRECONDITION, StatusCode.INVALID_ARGUMENT)
            assert "acme" not in status.message
        assert all(name.startswith("zeta:") for call in served.cluster.asked for name in call.streams)


@in_loop
async def test_without_keys_streams_of_tenants_are_not_reached() -> None:
    async with serving() as served:
        await make(served, "door")
        kept = served.cluster.streams["door"]
        served.cluster.streams["acme:gate"] = type(kept)(type(kept.new)(stream_id="acme:gate", tenant="acme"))
        assert await searched(served) == ["door"]


@in_loop
async def test_what_was_left_out_is_told_by_bare_names(keys: Path) -> None:
    cluster = MemoryCluster(warnings=("left out 1 stream written with another model: acme:old",))
    async with serving(cluster, keys=keys) as served:
        acme = served.with_key("key-of-acme")
        await make(acme, "door")
        told = ["left out 1 stream written with another model: old"]
        found = await acme.call("Search", SearchRequest(text="?", library=LibraryScope(), thumbnails=True))
        assert (list(found.warnings), found.moments[0].thumbnail) == (told, b"jpeg")
        answer = (await acme.call("Ask", AskRequest(question="?", library=LibraryScope())))[-1].answer
        assert (list(answer.warnings), answer.stream) == (told, "door")


@pytest.mark.parametrize("kind", [AskRequest, SearchRequest])
@in_loop
async def test_streams_and_library_exclude_each_other(kind: Any) -> None:
    async with serving() as served:
        await make(served, "door")
        method = kind.__name__.removesuffix("Request")
        for request, field in ((kind(streams=["door"], library=LibraryScope()), "library"), (kind(), "streams")):
            code, status = await refused(served.call(method, request))
            bad = BadRequest()
            assert any(detail.Unpack(bad) for detail in status.details)
            assert (code, bad.field_violations[0].field) == (StatusCode.INVALID_ARGUMENT, field)


@in_loop
async def test_a_search_of_the_library_counts_as_a_question(keys: Path) -> None:
    async with serving(keys=keys, limits=ServiceLimits(max_streams_per_question=1)) as served:
        acme = served.with_key("key-of-acme")
        await make(acme, "a", "b", "c")
        assert await searched(acme) == ["a", "b", "c"]  # however many there are
        served.cluster.gate.clear()
        waiting = acme.start("Ask", AskRequest(question="who?", library=LibraryScope()))
        await until(lambda: served.cluster.num_answering == 1)
        request = SearchRequest(text="who", library=LibraryScope())
        assert (await refused(acme.call("Search", request)))[0] is StatusCode.RESOURCE_EXHAUSTED
        served.cluster.gate.set()
        assert [response async for response in waiting]
        await acme.call("Search", request)
