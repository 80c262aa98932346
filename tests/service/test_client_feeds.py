"""What is sent next, and when nothing is on its way any more."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from cacheflow_ray.actors.api import PayloadKind
from cacheflow_ray.engine.position import Position
from cacheflow_ray.service.client.feeds import CHUNK_BYTES, Feed, FileFeed, FrameFeed
from cacheflow_ray.service.client.sources import Payloads, payload_of
from cacheflow_ray.service.messages import Granted
from tests.service.mortal import colour, shots

FRAME_BYTES = len(colour(0))


def granted(next_seq: int = 0, frames: int = 0, num_bytes: int = 0) -> Granted:
    return Granted(position=Position(next_seq=next_seq), credit_frames=frames, credit_bytes=num_bytes)


def frame_feed(num: int) -> Feed:
    return FrameFeed("s", Payloads(shots(num), partial(payload_of, kind=PayloadKind.IMAGE, quality=95)))


async def waits(work: Awaitable[object]) -> bool:
    """Whether it is not done soon."""
    try:
        await asyncio.wait_for(work, 0.05)
    except TimeoutError:
        return True
    return False


FEEDS: dict[str, tuple[Callable[[], Feed], Granted]] = {
    "frames": (lambda: frame_feed(1), granted(1, 1, FRAME_BYTES)),
    "file": (lambda: FileFeed(io.BytesIO(b"bytes")), granted(0, 0, 5)),
}


@pytest.mark.parametrize("kind", FEEDS)
def test_it_is_settled_once_all_is_acknowledged_not_before(kind: str) -> None:
    async def act() -> None:
        make, ack = FEEDS[kind]
        feed = make()
        feed.opened(granted(0, 8, 1 << 20))
        assert feed.is_idle
        assert await feed.next() is not None and await feed.next() is None
        assert not feed.is_idle and await waits(feed.settled())
        feed.acked(ack)
        assert feed.is_idle and not await waits(feed.settled())
        await feed.close()

    asyncio.run(act())


def test_frames_wait_for_credit_of_both_kinds() -> None:
    async def act() -> None:
        feed = frame_feed(4)
        feed.opened(granted(0, 2, 3 * FRAME_BYTES))
        assert [request.frame.seq for request in (await feed.next(), await feed.next()) if request] == [0, 1]
        assert await waits(feed.next())
        feed.acked(granted(1, 1, 0))
        third = await feed.next()
        assert third is not None and third.frame.seq == 2
        feed.acked(granted(2, 1, 0))
        assert await waits(feed.next())
        feed.acked(granted(2, 0, FRAME_BYTES))
        fourth = await feed.next()
        assert fourth is not None and fourth.frame.seq == 3 and await feed.next() is None
        await feed.close()

    asyncio.run(act())


def test_a_file_goes_in_pieces_no_larger_than_the_credit() -> None:
    async def act() -> None:
        whole = bytes(range(256)) * (CHUNK_BYTES // 128)
        feed, sent = FileFeed(io.BytesIO(whole)), b""
        feed.opened(granted(0, 0, CHUNK_BYTES + 10))
        for num_bytes in (CHUNK_BYTES, 10):
            request = await feed.next()
            assert request is not None and (request.chunk.offset, len(request.chunk.data)) == (len(sent), num_bytes)
            sent += request.chunk.data
        assert await waits(feed.next()) and sent == whole[: len(sent)]
        await feed.close()

    asyncio.run(act())
