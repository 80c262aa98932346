"""AnswerService and SearchService over real gRPC."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from google.rpc.error_details_pb2 import QuotaFailure
from grpc import StatusCode, aio

from cacheflow_ray.config import ServiceLimits
from cacheflow_ray.errors import DeadlinePassed, NothingToAnswer
from cacheflow_ray.service.v1.answer_pb2 import AskOptions, AskRequest
from cacheflow_ray.service.v1.common_pb2 import Evidence, TimeRange
from cacheflow_ray.service.v1.search_pb2 import SearchRequest
from cacheflow_ray.service.v1.stream_pb2 import CreateStreamRequest, Stream
from tests.service.cluster_double import MemoryCluster
from tests.service.serving import Served, in_loop, refused, serving, until

QUESTION = AskRequest(streams=["door"], question="what came by?")
SEARCH = SearchRequest(streams=["door"], text="a red car")


async def make(served: Served, *names: str) -> None:
    for name in names or ("door",):
        await served.call("CreateStream", CreateStreamRequest(stream=Stream(name=name)))


@in_loop
async def test_an_answer_comes_in_pieces_and_ends_with_the_rest() -> None:
    async with serving() as served:
        await make(served)
        request = AskRequest(
            streams=["door"],
            question="what came by?",
            session_id="s-9",
            time_range=TimeRange(start_s=1),
            options=AskOptions(top_k=3),
            after_seq=5,
            thumbnails=True,
        )
        *pieces, last = await served.call("Ask", request, timeout=30)
        assert [piece.text for piece in pieces] == ["two ", "red ", "cars"]
        answer = last.answer
        assert (answer.text, answer.session_id, answer.stream) == ("two red cars", "s-9", "door")
        assert (answer.usage.fetched_bytes, answer.timings_ms["first_token"]) == (6, 1.5)
        assert [(e.stream, list(e.block_idxs), e.kind) for e in answer.evidence] == [
            ("door", [3, 4], Evidence.KIND_RETRIEVED)
        ]

        (asked,) = served.cluster.asked
        assert (asked.after_seq, asked.thumbnails, asked.options.top_k) == (5, True, 3)
        assert asked.deadline_s == pytest.approx(time.time() + 30, abs=5)


@in_loop
async def test_a_question_without_deadline_has_none() -> None:
    async with serving() as served:
        await make(served)
        await served.call("Ask", QUESTION, timeout=None)
        assert served.cluster.asked[0].deadline_s is None


@in_loop
async def test_moments_are_found() -> None:
    async with serving() as served:
        await make(served, "door", "gate")
        request = SearchRequest(streams=["gate", "door"], text="a red car", top_k=2, thumbnails=True)
        moments = (await served.call("Search", request)).moments
        assert [(moment.stream, moment.score, moment.thumbnail) for moment in moments] == [
            ("gate", 0.75, b"jpeg"),
            ("door", 0.75, b"jpeg"),
        ]


@pytest.mark.parametrize("gone", ["cancelled", "late"])
@in_loop
async def test_who_stops_listening_stops_the_generation(gone: str) -> None:
    async with serving(MemoryCluster(endless=True)) as served:
        await make(served)
        call = served.start("Ask", QUESTION, timeout=0.5 if gone == "late" else None)
        for _ in range(10):
            assert (await call.read()).text
        assert served.cluster.num_answering == 1
        if gone == "cancelled":
            call.cancel()
        await until(lambda: not served.cluster.num_answering)
        expected = {"cancelled": StatusCode.CANCELLED, "late": StatusCode.DEADLINE_EXCEEDED}
        assert await call.code() is expected[gone]


@in_loop
async def test_a_question_that_waits_can_be_given_up() -> None:
    async with serving() as served:
        await make(served)
        served.cluster.gate.clear()
        call = served.start("Ask", QUESTION)
        await until(lambda: served.cluster.num_answering == 1)
        call.cancel()
        await until(lambda: not served.cluster.num_answering)


@in_loop
async def test_a_client_that_does_not_read_stops_the_generation_too() -> None:
    """HTTP/2 lets some megabytes be on their way; then the answer waits, and nothing is generated ahead of it."""
    cluster = MemoryCluster(pieces=("x" * (64 << 10),), endless=True)
    async with serving(cluster) as served:
        await make(served)
        call = served.start("Ask", QUESTION)
        await call.read()
        ahead = -1
        while ahead != cluster.num_pieces:
            ahead = cluster.num_pieces
            await asyncio.sleep(0.2)
        assert ahead < 500
        call.cancel()
        await until(lambda: not cluster.num_answering)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NothingToAnswer("stream 'door' holds no video: push some"), StatusCode.FAILED_PRECONDITION),
        (DeadlinePassed("frame 5 was not durable in time"), StatusCode.DEADLINE_EXCEEDED),
        (ZeroDivisionError("oops"), StatusCode.INTERNAL),
    ],
)
@in_loop
async def test_an_error_ends_the_answer_with_its_status(error: Exception, code: StatusCode) -> None:
    async with serving() as served:
        await make(served)
        served.cluster.errors.append(error)
        assert (await refused(served.call("Ask", QUESTION)))[0] is code


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        ({"max_questions": 2}, "max_questions"),
        ({"max_tenant_questions": 2}, "max_tenant_questions"),
    ],
)
@pytest.mark.parametrize("method", ["Ask", "Search"])
@in_loop
async def test_so_many_questions_at_a_time(limits: dict[str, int], limit: str, method: str) -> None:
    request: Any = {"Ask": QUESTION, "Search": SEARCH}[method]
    async with serving(limits=ServiceLimits(**limits)) as served:
        await make(served)
        served.cluster.gate.clear()
        waiting = [asyncio.ensure_future(served.call("Ask", QUESTION)) for _ in range(2)]
        await until(lambda: served.cluster.num_answering == 2)
        code, status = await refused(served.call(method, request))
        quota = QuotaFailure()
        assert any(detail.Unpack(quota) for detail in status.details)
        assert (code, quota.violations[0].subject) == (StatusCode.RESOURCE_EXHAUSTED, f"limit:{limit}")

        served.cluster.gate.set()
        await asyncio.gather(*waiting)
        await served.call(method, request)


@in_loop
async def test_so_many_streams_a_question() -> None:
    async with serving(limits=ServiceLimits(max_streams_per_question=2)) as served:
        await make(served, "a", "b", "c")
        for method, kind, words in (("Ask", AskRequest, "question"), ("Search", SearchRequest, "text")):
            await served.call(method, kind(streams=["a", "b"], **{words: "?"}))
            code, _ = await refused(served.call(method, kind(streams=["a", "b", "c"], **{words: "?"})))
            assert code is StatusCode.RESOURCE_EXHAUSTED


@in_loop
async def test_a_message_above_the_cap_is_refused_and_the_service_goes_on() -> None:
    async with serving(limits=ServiceLimits(max_message_bytes=1 << 16)) as served:
        await make(served)
        large = AskRequest(streams=["door"], question="x" * (1 << 16))
        assert (await refused(served.call("Ask", large)))[0] is StatusCode.RESOURCE_EXHAUSTED
        await served.call("Ask", QUESTION)


@in_loop
async def test_a_call_without_any_message_is_refused() -> None:
    async with serving() as served:
        call = served.channel.stream_unary("/cacheflow.v1.StreamService/GetStream")()
        await call.done_writing()
        with pytest.raises(aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is StatusCode.INVALID_ARGUMENT
