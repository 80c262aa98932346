"""IngestService over real gRPC: credits, order, durability, and how a push ends."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from google.rpc.error_details_pb2 import QuotaFailure
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio

from cacheflow_ray.actors.api import IngestSession, NewStream, PayloadKind
from cacheflow_ray.config import ServiceLimits
from cacheflow_ray.engine.position import Overload
from cacheflow_ray.errors import BrokenMedia, EncoderLost
from cacheflow_ray.service.v1.ingest_pb2 import IngestRequest, IngestStart
from tests.service.cluster_double import MemoryCluster, Session
from tests.service.serving import FINISH, PICTURE, Served, chunked, framed, in_loop, refused, serving, started, until


async def opened(served: Served, **fields: Any) -> tuple[Any, Any]:
    """A push that has started, and how."""
    call = served.start("Ingest")
    await call.write(started(**fields))
    return call, (await call.read()).started


async def send(call: Any, *requests: IngestRequest) -> None:
    for request in requests:
        await call.write(request)


async def ended(call: Any) -> tuple[StatusCode, Status]:
    """How it ended; acks before that are passed over."""

    async def rest() -> None:
        while await call.read() is not aio.EOF:
            pass

    return await refused(rest())


def limit_of(status: Status) -> str:
    quota = QuotaFailure()
    assert any(detail.Unpack(quota) for detail in status.details)
    return quota.violations[0].subject


@in_loop
async def test_frames_are_pushed_acknowledged_and_finished() -> None:
    async with serving() as served:
        call, start = await opened(served, payload=IngestStart.PAYLOAD_IMAGE, labels={"at": "hall"})
        assert (start.resume_from_seq, start.credit_frames, start.credit_bytes) == (0, 64, 32 << 20)
        await send(call, *map(framed, range(10)), FINISH)
        credits, last = 0, None
        while (response := await call.read()).WhichOneof("message") == "ack":
            credits, last = credits + response.ack.credit_frames, response.ack
        assert (credits, last.next_seq, last.totals.frames) == (10, 10, 10)
        assert response.finished.stream.complete
        assert await call.read() is aio.EOF
        assert await call.code() is StatusCode.OK

        kept = served.cluster.streams["door"]
        assert [frame.seq for frame in kept.frames] == list(range(10))
        assert kept.frames[3].data == PICTURE
        assert kept.new.labels == {"at": "hall"}
        assert served.cluster.sessions[0].num_closed == 1


@in_loop
async def test_a_client_that_closes_its_side_goes_on_later() -> None:
    async with serving() as served:
        call, _ = await opened(served)
        await send(call, framed(0), framed(1))
        await call.done_writing()
        next_seq = 0
        while (response := await call.read()) is not aio.EOF:
            next_seq = response.ack.next_seq
        assert next_seq == 2
        assert await call.code() is StatusCode.OK
        _, start = await opened(served)
        assert (start.resume_from_seq, start.complete) == (2, False)


@in_loop
async def test_a_complete_stream_says_so_and_takes_no_frame() -> None:
    async with serving() as served:
        for _ in range(2):  # finishing again changes nothing
            call, start = await opened(served)
            await send(call, FINISH)
            assert (await call.read()).finished.stream.complete
        assert start.complete
        call, _ = await opened(served)
        await send(call, framed(0))
        assert (await ended(call))[0] is StatusCode.INVALID_ARGUMENT


@in_loop
async def test_a_video_file_arrives_as_it_is() -> None:
    async with serving() as served:
        call, _ = await opened(served, payload=IngestStart.PAYLOAD_CONTAINER, overload=IngestStart.OVERLOAD_LOWER_FPS)
        file = bytes(range(256)) * 40_000  # 10 MB
        credits = 0
        for offset in range(0, len(file), 1 << 20):
            await call.write(chunked(offset, file[offset : offset + (1 << 20)]))
        await call.write(FINISH)
        while (response := await call.read()).WhichOneof("message") == "ack":
            credits += response.ack.credit_bytes
        assert credits == len(file)
        assert served.cluster.streams["door"].file == file
        session = served.cluster.sessions[0]
        assert (session.kind, session.overload) == (PayloadKind.CONTAINER, Overload.LOWER_FPS)


@pytest.mark.parametrize(
    ("payload", "requests"),
    [
        ("PAYLOAD_CONTAINER", [chunked(1, b"x")]),
        ("PAYLOAD_CONTAINER", [chunked(0, b"xy"), chunked(1, b"z")]),
        ("PAYLOAD_CONTAINER", [chunked(0, b"xy"), chunked(3, b"z")]),
        ("PAYLOAD_CONTAINER", [chunked(0, b"")]),
        ("PAYLOAD_CONTAINER", [framed(0)]),
        ("PAYLOAD_IMAGE", [chunked(0, b"x")]),
        ("PAYLOAD_IMAGE", [framed(2), framed(1)]),
        ("PAYLOAD_IMAGE", [framed(0, timestamp_s=math.nan)]),
        ("PAYLOAD_IMAGE", [framed(0, timestamp_s=math.inf)]),
        ("PAYLOAD_IMAGE", [framed(0, timestamp_s=-1)]),
        ("PAYLOAD_IMAGE", [framed(0, data=b"no picture")]),
        ("PAYLOAD_IMAGE", [framed(2**64 - 1)]),
        ("PAYLOAD_RGB", [framed(0, data=bytes(11), width=2, height=2)]),
        ("PAYLOAD_RGB", [framed(0, data=bytes(12))]),
        ("PAYLOAD_IMAGE", [started()]),
        ("PAYLOAD_IMAGE", [IngestRequest()]),
    ],
)
@in_loop
async def test_what_is_not_as_it_has_to_be_ends_the_push(payload: str, requests: list[IngestRequest]) -> None:
    async with serving() as served:
        call, _ = await opened(served, payload=IngestStart.Payload.Value(payload))
        await send(call, *requests)
        assert (await ended(call))[0] is StatusCode.INVALID_ARGUMENT
        await until(lambda: served.cluster.sessions[0].num_closed == 1)


@pytest.mark.parametrize("first", [framed(0), FINISH, IngestRequest(), None])
@in_loop
async def test_the_first_message_is_start(first: IngestRequest | None) -> None:
    async with serving() as served:
        code, _ = await refused(served.call("Ingest", first))
        assert code is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("limit", "options"),
    [
        ("credit_frames", {"credit_frames": 3}),
        ("credit_bytes", {"credit_bytes": 3 * len(PICTURE)}),
    ],
)
@in_loop
async def test_more_than_the_credits_is_refused(limit: str, options: dict[str, int]) -> None:
    cluster = MemoryCluster(**options)
    cluster.gate.clear()
    async with serving(cluster) as served:
        call, _ = await opened(served)
        await send(call, *map(framed, range(3)))
        await asyncio.sleep(0.2)
        assert not call.done()
        await send(call, framed(3))
        code, status = await ended(call)
        assert (code, limit_of(status)) == (StatusCode.RESOURCE_EXHAUSTED, f"limit:{limit}")


@in_loop
async def test_a_slow_encoder_gets_few_large_pushes() -> None:
    cluster = MemoryCluster()
    cluster.gate.clear()
    async with serving(cluster) as served:
        call, _ = await opened(served)
        await send(call, *map(framed, range(40)))
        session = cluster.sessions[0]
        await until(lambda: sum(session.pushes) >= 34)
        cluster.gate.set()
        await send(call, FINISH)
        await until(lambda: session.num_closed == 1)
    assert sum(session.pushes) == 40
    assert session.pushes.count(16) == 2
    assert [frame.seq for frame in cluster.streams["door"].frames] == list(range(40))


@in_loop
async def test_a_client_that_reads_no_acks_holds_up_nobody() -> None:
    cluster = MemoryCluster(credit_frames=4)
    async with serving(cluster) as served:
        deaf, _ = await opened(served)
        await send(deaf, *map(framed, range(4)))
        other = served.start("Ingest")
        await send(other, started("gate"), *map(framed, range(4)), FINISH)
        await until(lambda: "gate" in cluster.streams and cluster.streams["gate"].position.complete)
        await until(lambda: len(cluster.streams["door"].frames) == 4)
        assert not deaf.done()
        deaf.cancel()


@in_loop
async def test_credits_come_back_once_frames_are_durable() -> None:
    cluster = MemoryCluster(credit_frames=4)
    cluster.gate.clear()
    async with serving(cluster) as served:
        call, _ = await opened(served)
        await send(call, *map(framed, range(4)))
        reading = asyncio.ensure_future(call.read())
        await asyncio.sleep(0.1)
        assert not reading.done()
        cluster.gate.set()
        given = (await reading).ack.credit_frames
        while given < 4:
            given += (await call.read()).ack.credit_frames
        await send(call, *map(framed, range(4, 8)), FINISH)
        await until(lambda: cluster.sessions[0].num_closed == 1)
        assert len(cluster.streams["door"].frames) == 8


@in_loop
async def test_an_error_of_a_push_ends_the_call_with_it() -> None:
    async with serving() as served:
        for error, code in (
            (BrokenMedia("frame 0 is cut", seq=0), "INVALID_ARGUMENT"),
            (EncoderLost("w"), "UNAVAILABLE"),
        ):
            served.cluster.gate.clear()
            call, _ = await opened(served)
            served.cluster.errors.append(error)
            served.cluster.gate.set()
            await send(call, framed(0))
            assert (await ended(call))[0] is StatusCode[code]
        assert [session.num_closed for session in served.cluster.sessions] == [1, 1]


@in_loop
async def test_a_newer_push_of_the_same_stream_ends_the_older() -> None:
    async with serving() as served:
        older, _ = await opened(served)
        newer, _ = await opened(served)
        await send(newer, framed(0))
        assert (await newer.read()).ack.next_seq == 1
        await send(older, framed(0))
        assert (await ended(older))[0] is StatusCode.ABORTED


@in_loop
async def test_a_client_that_goes_away_closes_its_session() -> None:
    cluster = MemoryCluster()
    cluster.gate.clear()
    async with serving(cluster) as served:
        cancelled, _ = await opened(served)
        await send(cancelled, framed(0))
        late = served.start("Ingest", timeout=0.5)
        await late.write(started("gate"))
        await until(lambda: len(cluster.sessions) == 2)
        cancelled.cancel()
        await until(lambda: _closed(cluster.sessions))
        assert await late.code() is StatusCode.DEADLINE_EXCEEDED


def _closed(sessions: list[Session]) -> bool:
    return all(session.num_closed == 1 and not session.under_way for session in sessions)


class SlowToOpen(MemoryCluster):
    """Opening waits for the gate."""

    async def open_ingest(self, new: NewStream, kind: PayloadKind, overload: Overload) -> IngestSession:
        session = await super().open_ingest(new, kind, overload)
        await self.gate.wait()
        return session


@in_loop
async def test_a_session_that_opens_for_nobody_is_closed() -> None:
    cluster = SlowToOpen()
    cluster.gate.clear()
    async with serving(cluster) as served:
        call = await _asking(served, "door")
        await until(lambda: bool(cluster.sessions))
        call.cancel()
        await asyncio.sleep(0.1)
        cluster.gate.set()
        await until(lambda: cluster.sessions[0].num_closed == 1)


@in_loop
async def test_no_more_than_so_many_streams_are_pushed_at_a_time() -> None:
    async with serving(limits=ServiceLimits(max_ingests=1)) as served:
        call, _ = await opened(served)
        code, status = await ended(await _asking(served, "gate"))
        assert (code, limit_of(status)) == (StatusCode.RESOURCE_EXHAUSTED, "limit:max_ingests")
        call.cancel()
        await until(lambda: served.cluster.sessions[0].num_closed == 1)
        await opened(served, stream="gate")


async def _asking(served: Served, stream: str) -> Any:
    call = served.start("Ingest")
    await call.write(started(stream))
    return call
