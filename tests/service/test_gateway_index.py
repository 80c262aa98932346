"""Index jobs as operations over real gRPC: their lives, their limits, and that a tenant sees its own only."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from cacheflow_ray.actors.index_api import NewIndex
from cacheflow_ray.archive.meter import Counts
from cacheflow_ray.archive.records import FileRecord, FileState, JobState, JobTotals, Trouble
from cacheflow_ray.config import ServiceLimits, StreamSettings
from cacheflow_ray.errors import ClusterUnavailable, DeadlinePassed, JobNotFound, SourceNotFound
from cacheflow_ray.service.client import AsyncClient
from cacheflow_ray.service.v1 import library_pb2
from memory_store.records import Retention
from tests.service.cluster_double import MemoryCluster
from tests.service.serving import Served, in_loop, refused, serving

KEYS = """
[tenants.acme]
keys = ["key-of-acme"]
max_streams = 7

[tenants.zeta]
keys = ["key-of-zeta"]
"""
TOTALS = JobTotals(
    files={FileState.DONE: 3, FileState.FAILED: 1, FileState.PENDING: 2},
    already_done=1,
    counts=Counts(frames=40, tokens_seen=400, tokens_kept=90, video_s=12.5, decode_s=0.25, encode_s=1.5),
    busy_s=2.5,
    left=0.5,
    troubles=(Trouble(uri="/v/a.mp4", state=FileState.FAILED, reason="no video"),),
)
CREATE = library_pb2.CreateIndexJobRequest(sources=["videos"], job_id="shelf")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(KEYS)
    return path


def named(kind: type[Any], name: str = "operations/shelf", **more: Any) -> Any:
    return kind(name=name, **more)


async def put(cluster: MemoryCluster, job_id: str, totals: JobTotals, tenant: str = "") -> None:
    """What the job has got through."""
    view = await cluster.index.get(tenant, job_id)
    cluster.index.jobs_of[tenant][job_id] = type(view)(job=view.job, totals=totals, error=view.error)


@in_loop
async def test_a_job_from_its_request_to_its_report() -> None:
    new = NewIndex(
        sources=("videos", "s3://bucket/clips"),
        job_id="shelf",
        settings=StreamSettings(tau=0.5),
        labels={"year": "2026"},
        retention=Retention(summary_only_after_s=0.0),
        retry_failed=True,
        indexers=3,
        files_at_once=5,
    )
    async with serving() as served, AsyncClient(f"127.0.0.1:{served.gateway.port}") as client:
        job = await client.index(new)
        assert served.cluster.index.started == [new]
        assert job.name == "operations/shelf" and not await job.done()

        await put(served.cluster, "shelf", TOTALS)
        assert not await job.done()
        assert (job.metadata.states[FileState.DONE], job.metadata.counts) == (3, TOTALS.counts)
        assert (job.metadata.elapsed_s, job.metadata.left, job.metadata.time_left_s) == (2.5, 0.5, 2.5)
        with pytest.raises(DeadlinePassed, match="it goes on"):
            await job.wait(0.2)

        waiting = asyncio.create_task(job.wait(30))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await served.cluster.index.end("", "shelf", JobState.DONE)
        report = await waiting
        assert report.job.state is JobState.DONE and report.elapsed_s == 8.0
        assert report.files == {"pending": 2, "running": 0, "done": 3, "failed": 1, "skipped": 0}
        assert (report.already_done, report.counts, report.troubles) == (1, TOTALS.counts, TOTALS.troubles)

        await client.forget_index_job(job.name)
        with pytest.raises(JobNotFound):
            await client.index_job(job.name)


@in_loop
async def test_an_operation_is_done_with_a_response_or_an_error() -> None:
    async with serving() as served:
        created = await served.call("CreateIndexJob", CREATE)
        assert not created.done and created.WhichOneof("result") is None
        get = named(operations_pb2.GetOperationRequest)
        for state, error, code in (
            (JobState.CANCELLED, None, StatusCode.CANCELLED),
            (JobState.FAILED, SourceNotFound("there is nothing at 'videos'"), StatusCode.NOT_FOUND),
            (JobState.RUNNING, ClusterUnavailable("nobody runs it any more"), StatusCode.UNAVAILABLE),
            (JobState.DONE, None, None),
        ):
            await served.cluster.index.end("", "shelf", state, error)
            operation = await served.call("GetOperation", get)
            assert operation.done
            if code is None:
                assert operation.response.Is(library_pb2.IndexJobReport.DESCRIPTOR)
            else:
                assert operation.error.code == code.value[0]
                assert error is None or operation.error.message == str(error)


@in_loop
async def test_a_client_raises_what_ended_the_job_and_reports_one_that_was_cancelled() -> None:
    async with serving() as served, AsyncClient(f"127.0.0.1:{served.gateway.port}") as client:
        job = await client.index(NewIndex(sources=("videos",)))
        await put(served.cluster, job.view.job.id, TOTALS)
        await job.cancel()
        report = await job.wait(5)
        assert report.job.state is JobState.CANCELLED and report.counts == TOTALS.counts
        seen = [now.states[FileState.DONE] async for now in job]
        assert seen == [3]
        await served.cluster.index.end("", job.view.job.id, JobState.FAILED, SourceNotFound("nothing at 'videos'"))
        again = await client.index_job(job.name)
        with pytest.raises(SourceNotFound, match="nothing at 'videos'"):
            await again.wait(5)


@in_loop
async def test_a_wait_ends_in_time_and_when_the_gateway_closes() -> None:
    async with serving() as served:
        await served.call("CreateIndexJob", CREATE)
        wait = named(operations_pb2.WaitOperationRequest, timeout=Duration(nanos=10**8))
        assert not (await served.call("WaitOperation", wait)).done
        assert not (await served.call("WaitOperation", named(operations_pb2.WaitOperationRequest), timeout=1)).done
        call = served.start("WaitOperation", named(operations_pb2.WaitOperationRequest))
        await asyncio.sleep(0.2)
        draining = asyncio.create_task(served.gateway.drain(20))
        assert not (await call).done
        await asyncio.wait_for(draining, 10)


@pytest.mark.parametrize(
    "method", ["GetOperation", "WaitOperation", "CancelOperation", "DeleteOperation", "ListIndexFiles"]
)
@in_loop
async def test_another_tenants_job_is_not_there(method: str, keys: Path) -> None:
    requests = {
        "GetOperation": operations_pb2.GetOperationRequest,
        "WaitOperation": operations_pb2.WaitOperationRequest,
        "CancelOperation": operations_pb2.CancelOperationRequest,
        "DeleteOperation": operations_pb2.DeleteOperationRequest,
    }
    async with serving(keys=keys) as served:
        acme, zeta = served.with_key("key-of-acme"), served.with_key("key-of-zeta")
        await acme.call("CreateIndexJob", CREATE)
        assert served.cluster.index.started[0].tenant == "acme" and served.cluster.index.started[0].max_streams == 7
        served.cluster.index.records["acme"] = [
            FileRecord(uri="/v/a.mp4", stream="acme:a", job="shelf", reason="the same content as stream 'acme:b'")
        ]
        if method == "ListIndexFiles":
            request = library_pb2.ListIndexFilesRequest(job="operations/shelf")
            assert not (await zeta.call(method, request)).files
            (file,) = (await acme.call(method, request)).files
            assert (file.stream, file.reason) == ("a", "the same content as stream 'b'")
        else:
            for name in ("operations/shelf", "operations/acme:shelf", "shelf", ""):
                code, _ = await refused(zeta.call(method, requests[method](name=name)))
                assert code is StatusCode.NOT_FOUND
        assert not (await zeta.call("ListOperations")).operations
        view = await served.cluster.index.get("acme", "shelf")
        assert view.job.state is JobState.RUNNING


@in_loop
async def test_two_tenants_may_give_the_same_name(keys: Path) -> None:
    async with serving(keys=keys) as served:
        for key in ("key-of-acme", "key-of-zeta"):
            assert (await served.with_key(key).call("CreateIndexJob", CREATE)).name == "operations/shelf"
        assert [new.tenant for new in served.cluster.index.started] == ["acme", "zeta"]


@in_loop
async def test_a_tenant_has_one_job_under_way_and_a_request_may_be_sent_twice(keys: Path) -> None:
    other = library_pb2.CreateIndexJobRequest(sources=["others"])
    async with serving(keys=keys) as served:
        acme = served.with_key("key-of-acme")
        await asyncio.gather(*[acme.call("CreateIndexJob", CREATE) for _ in range(3)])
        code, status = await refused(acme.call("CreateIndexJob", other))
        assert code is StatusCode.RESOURCE_EXHAUSTED and "max_index_jobs" in status.message
        await served.with_key("key-of-zeta").call("CreateIndexJob", other)
        await acme.call("CancelOperation", named(operations_pb2.CancelOperationRequest))
        await acme.call("CreateIndexJob", other)
        listed = (await acme.call("ListOperations")).operations
        assert len(listed) == 2 and listed[1].name == "operations/shelf"


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({}, "sources: none is given"),
        ({"sources": [""]}, "sources: ''"),
        ({"sources": ["a\0b"]}, "sources"),
        ({"sources": ["a"] * 1001}, "sources: 1001"),
        ({"sources": ["a"], "job_id": "No Job"}, "job_id"),
        ({"sources": ["a"], "job_id": "acme:shelf"}, "job_id"),
        ({"sources": ["a"], "labels": {"": "x"}}, "labels"),
        ({"sources": ["a"], "settings": {"tau": 7}}, "settings.tau"),
    ],
)
@in_loop
async def test_a_bad_request_is_refused_by_the_name_of_a_field(fields: dict[str, Any], what: str) -> None:
    async with serving() as served:
        code, status = await refused(served.call("CreateIndexJob", library_pb2.CreateIndexJobRequest(**fields)))
        assert code is StatusCode.INVALID_ARGUMENT and what in status.message
        assert not served.cluster.index.started


@in_loop
async def test_a_crew_has_limits() -> None:
    async with serving(limits=ServiceLimits(max_indexers=2, max_files_at_once=9)) as served:
        for crew in ({"indexers": 3}, {"files_at_once": 10}):
            request = library_pb2.CreateIndexJobRequest(sources=["a"], crew=crew)
            assert (await refused(served.call("CreateIndexJob", request)))[0] is StatusCode.RESOURCE_EXHAUSTED
        request = library_pb2.CreateIndexJobRequest(sources=["a"], crew={"indexers": 2, "files_at_once": 9})
        await served.call("CreateIndexJob", request)


@in_loop
async def test_files_and_operations_come_page_by_page() -> None:
    async with serving(limits=ServiceLimits(max_index_jobs=9)) as served:
        states = [FileState.DONE, FileState.FAILED] * 3
        records = [
            FileRecord(uri=f"/v/{at}.mp4", stream=f"s-{at}", job="shelf", state=state, size=at or None, frames=at)
            for at, state in enumerate(states)
        ]
        served.cluster.index.records[""] = records
        for name in ("a", "b", "c"):
            await served.call("CreateIndexJob", library_pb2.CreateIndexJobRequest(sources=["v"], job_id=name))
        for size, state, expected in ((2, 0, records), (2, 4, records[1::2]), (3, 3, records[::2])):
            assert await _all_files(served, page_size=size, state=state) == [own.uri for own in expected]
        first = await served.call("ListOperations", operations_pb2.ListOperationsRequest(page_size=2))
        request = operations_pb2.ListOperationsRequest(page_size=2, page_token=first.next_page_token)
        second = await served.call("ListOperations", request)
        ids = [own.name.removeprefix("operations/") for page in (first, second) for own in page.operations]
        assert ids == ["c", "b", "a"] and not second.next_page_token
        async with AsyncClient(f"127.0.0.1:{served.gateway.port}") as client:
            assert await client.index_files(state=FileState.FAILED) == records[1::2]
            assert await client.index_files(job="operations/other") == []
            assert [job.view.job.id for job in await client.index_jobs()] == ["c", "b", "a"]


async def _all_files(served: Served, **fields: Any) -> list[str]:
    found, token = [], ""
    while True:
        request = library_pb2.ListIndexFilesRequest(page_token=token, **fields)
        page = await served.call("ListIndexFiles", request)
        found += [file.uri for file in page.files]
        token = page.next_page_token
        if not token:
            return found
        assert len(page.files) == fields["page_size"]
