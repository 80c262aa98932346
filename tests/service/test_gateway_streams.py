"""StreamService and AdminService over real gRPC."""

from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure, ResourceInfo
from grpc import StatusCode

from cacheflow_ray.config import ServiceLimits, StreamSettings
from cacheflow_ray.service.v1 import admin_pb2, stream_pb2
from memory_store.errors import StoreFull
from tests.service.serving import in_loop, refused, serving


def create(name: str, **fields: object) -> stream_pb2.CreateStreamRequest:
    return stream_pb2.CreateStreamRequest(stream=stream_pb2.Stream(name=name, **fields))  # type: ignore[arg-type]


def get(name: str) -> stream_pb2.GetStreamRequest:
    return stream_pb2.GetStreamRequest(name=name)


@in_loop
async def test_a_stream_is_made_found_changed_and_deleted() -> None:
    async with serving() as served:
        asked = create("door", settings=stream_pb2.StreamSettings(tau=0.25), labels={"at": "hall"})
        made = (await served.call("CreateStream", asked)).stream
        assert (made.name, dict(made.labels)) == ("door", {"at": "hall"})
        assert served.cluster.streams["door"].new.settings == StreamSettings(tau=0.25)

        change = stream_pb2.UpdateStreamRequest(stream=stream_pb2.Stream(name="door", labels={"at": "gate"}))
        change.update_mask.paths.append("labels")
        changed = (await served.call("UpdateStream", change)).stream
        assert dict(changed.labels) == {"at": "gate"}
        assert (await served.call("GetStream", get("door"))).stream == changed

        await served.call("DeleteStream", stream_pb2.DeleteStreamRequest(name="door"))
        code, status = await refused(served.call("GetStream", get("door")))
        assert code is StatusCode.NOT_FOUND
        resource = ResourceInfo()
        assert any(detail.Unpack(resource) for detail in status.details)
        assert resource.resource_name == "door"


@in_loop
async def test_a_stream_made_otherwise_is_not_made_again() -> None:
    async with serving() as served:
        await served.call("CreateStream", create("door"))
        await served.call("CreateStream", create("door"))
        other = create("door", settings=stream_pb2.StreamSettings(tau=0.25))
        assert (await refused(served.call("CreateStream", other)))[0] is StatusCode.ALREADY_EXISTS


@in_loop
async def test_pages_follow_one_another_to_the_last() -> None:
    async with serving() as served:
        for i in range(7):
            await served.call("CreateStream", create(f"cam-{i}", labels={"odd": str(i % 2)}))

        for labels, due in (({}, range(7)), ({"odd": "1"}, [1, 3, 5]), ({"odd": "2"}, [])):
            names: list[str] = []
            sizes: list[int] = []
            token = ""
            while not sizes or token:
                request = stream_pb2.ListStreamsRequest(page_size=3, page_token=token, labels=labels)
                page = await served.call("ListStreams", request)
                names += [stream.name for stream in page.streams]
                sizes.append(len(page.streams))
                token = page.next_page_token
            assert names == [f"cam-{i}" for i in due]
            assert sizes[-1] > 0 or sizes == [0]


@in_loop
async def test_a_full_last_page_says_that_it_is_the_last() -> None:
    async with serving() as served:
        for i in range(4):
            await served.call("CreateStream", create(f"cam-{i}"))
        page = await served.call("ListStreams", stream_pb2.ListStreamsRequest(page_size=4))
        assert (len(page.streams), page.next_page_token) == (4, "")


@in_loop
async def test_a_token_that_no_page_gave_is_refused() -> None:
    async with serving() as served:
        request = stream_pb2.ListStreamsRequest(page_token="cam-1")
        assert (await refused(served.call("ListStreams", request)))[0] is StatusCode.INVALID_ARGUMENT


@in_loop
async def test_a_tenant_has_as_many_streams_as_it_may() -> None:
    async with serving(limits=ServiceLimits(max_streams=2)) as served:
        await served.call("CreateStream", create("a"))
        await served.call("CreateStream", create("b"))
        await served.call("CreateStream", create("b"))  # is there already
        code, status = await refused(served.call("CreateStream", create("c")))
        assert code is StatusCode.RESOURCE_EXHAUSTED
        quota = QuotaFailure()
        assert any(detail.Unpack(quota) for detail in status.details)
        assert quota.violations[0].subject == "limit:max_streams"


@in_loop
async def test_an_error_of_the_cluster_is_told_with_its_reason() -> None:
    async with serving() as served:
        served.cluster.errors.append(StoreFull("no space left at /data: free some", path="/data"))
        code, status = await refused(served.call("GetStream", get("door")))
        info = ErrorInfo()
        assert any(detail.Unpack(info) for detail in status.details)
        assert (code, info.reason) == (StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")


@in_loop
async def test_status_and_scale() -> None:
    async with serving() as served:
        await served.call("CreateStream", create("door"))
        status = await served.call("GetStatus", admin_pb2.GetStatusRequest())
        assert [(actor.name, actor.metrics["frames_total"]) for actor in status.actors] == [
            ("encoder-0", 7.0),
            ("store-0", 7.0),
        ]
        assert [stream.name for stream in status.streams] == ["door"]
        scaled = await served.call("Scale", admin_pb2.ScaleRequest(encoders=3))
        assert (scaled.encoders, scaled.answerers) == (3, 1)


@pytest.mark.parametrize("count", [0, 1025])
@in_loop
async def test_a_scale_out_of_range_is_refused(count: int) -> None:
    async with serving() as served:
        request = admin_pb2.ScaleRequest(encoders=count)
        assert (await refused(served.call("Scale", request)))[0] is StatusCode.INVALID_ARGUMENT
