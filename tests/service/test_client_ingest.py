"""Ingest over connections that break: nothing lost, nothing twice, nothing beyond the credits."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cacheflow_ray.actors.api import PayloadKind, StreamView
from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine import IngestProgress
from cacheflow_ray.errors import (
    ClusterUnavailable,
    EncoderLost,
    InvalidConfig,
    SourceNotFound,
    UnsupportedMedia,
    UsageError,
)
from cacheflow_ray.media import open_source, write_video
from cacheflow_ray.service.client import AsyncClient, IngestOptions
from memory_store.errors import EpochFenced, StoreFull
from tests.service.mortal import MortalCluster, Running, Shot, colour, running, shots

OPEN = IngestOptions(finish=False)


def against(cluster: MortalCluster, act: Callable[[AsyncClient, Running], Coroutine[Any, Any, Any]]) -> Any:
    """What `act` gives, with a client of the service; within 30 s."""

    async def main() -> Any:
        async with running(cluster) as serving, AsyncClient(serving.address) as client:
            return await asyncio.wait_for(act(client, serving), 30)

    return asyncio.run(main())


def ingested(cluster: MortalCluster, source: Any, **given: Any) -> StreamView:
    view: StreamView = against(cluster, lambda client, _: client.ingest("s", source, **given))
    return view


async def until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.005)


def test_frames_arrive_whole_and_the_stream_is_finished() -> None:
    cluster, told = MortalCluster(), list[IngestProgress]()
    view = ingested(cluster, shots(20), progress=told.append)

    assert cluster.seqs() == list(range(20)) and view.info.complete
    assert [frame.data for frame in cluster.streams["s"].frames] == [colour(seq) for seq in range(20)]
    counts = [now.frames for now in told]
    assert counts == sorted(counts) and (counts[-1], told[-1].position_s) == (20, 19.0)


@pytest.mark.parametrize("die_at", [[1], [4], [7, 8, 9], [10, 20, 30]])
def test_a_server_that_dies_on_the_way_loses_and_doubles_nothing(die_at: list[int]) -> None:
    cluster = MortalCluster(credit_frames=4, die_at=deque(die_at), pace_s=0.003)
    view = ingested(cluster, shots(30))

    assert not cluster.die_at and cluster.received > 30
    assert cluster.seqs() == list(range(30)) and view.position.frames == 30


def test_an_async_source_is_pushed_alike() -> None:
    async def live() -> AsyncIterator[Shot]:
        for shot in shots(10):
            await asyncio.sleep(0.002)
            yield shot

    cluster = MortalCluster(die_at=deque([5]), pace_s=0.005)
    ingested(cluster, live())
    assert cluster.seqs() == list(range(10))


def test_a_connection_lost_while_the_source_is_silent_is_made_anew_and_no_frame_is_lost() -> None:
    async def act(client: AsyncClient, serving: Running) -> None:
        silence = asyncio.Event()

        async def live() -> AsyncIterator[Shot]:
            for shot in shots(6):
                if shot.seq == 3:
                    await silence.wait()
                yield shot

        pushing = asyncio.create_task(client.ingest("s", live()))
        await until(lambda: len(cluster.seqs()) == 3)
        serving.die_and_rise()
        await asyncio.sleep(0.5)
        silence.set()
        await pushing

    cluster = MortalCluster()
    against(cluster, act)
    assert cluster.seqs() == list(range(6))


@pytest.mark.parametrize(("frames", "num_bytes"), [(1, 1 << 20), (3, 1 << 20), (100, 600), (100, 250)])
def test_credits_are_never_exceeded(frames: int, num_bytes: int) -> None:
    """The gateway refuses a client that does."""
    cluster = MortalCluster(credit_frames=frames, credit_bytes=num_bytes, pace_s=0.001)
    ingested(cluster, shots(40))

    assert cluster.seqs() == list(range(40))
    assert cluster.most_on_way <= min(frames, num_bytes // len(colour(0)))


def test_a_slow_server_does_not_make_memory_grow() -> None:
    """1,000 frames of 120 kB; 4 may be on their way."""
    cluster, made = MortalCluster(credit_frames=4, pace_s=0.001), [0]

    def source() -> Iterator[Shot]:
        for seq in range(1000):
            made[0] = seq
            for kept in cluster.streams["s"].frames:  # what the server keeps would count too
                object.__setattr__(kept, "data", b"")
            assert seq <= cluster.streams["s"].position.next_seq + 5
            yield Shot(seq, float(seq), np.zeros((200, 200, 3), np.uint8))

    tracemalloc.start()
    try:
        ingested(cluster, source(), options=IngestOptions(payload=PayloadKind.RGB))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made[0] == 999 and peak < 20e6


def test_pushed_again_after_an_end_in_the_middle_only_what_is_missing_is_sent() -> None:
    def breaks() -> Iterator[Shot]:
        yield from shots(12)
        while len(cluster.seqs()) < 6:
            time.sleep(0.005)
        raise RuntimeError("the camera broke")

    cluster = MortalCluster()
    with pytest.raises(RuntimeError, match="the camera broke"):
        ingested(cluster, breaks())
    durable, cluster.received = len(cluster.seqs()), 0
    ingested(cluster, shots(20))

    assert 0 < durable <= 12 and cluster.seqs() == list(range(20)) and cluster.received == 20 - durable


def test_a_stream_left_open_has_all_and_goes_on_later() -> None:
    cluster = MortalCluster(pace_s=0.002)
    view = ingested(cluster, shots(10), options=OPEN)
    assert not view.info.complete and cluster.seqs() == list(range(10))

    assert ingested(cluster, shots(15)).info.complete
    assert cluster.seqs() == list(range(15))


def test_a_complete_stream_takes_nothing() -> None:
    cluster = MortalCluster()
    ingested(cluster, shots(5))
    view = ingested(cluster, iter(()))
    assert view.info.complete and view.position.frames == 5 and len(cluster.sessions) == 1


def test_what_an_overload_policy_left_out_is_told_over_all_connections() -> None:
    cluster = MortalCluster(shed=3, die_at=deque([8]), pace_s=0.001)
    assert ingested(cluster, shots(20)).position.shed == 6


def test_a_newer_client_ends_the_older_one_which_does_not_fight_back() -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        older = asyncio.create_task(client.ingest("s", shots(1000), options=OPEN))
        await until(lambda: bool(cluster.seqs()))
        await client.ingest("s", [])
        with pytest.raises(EpochFenced) as fenced:
            await older
        assert fenced.value.ids == {"stream_id": "s"}

    cluster = MortalCluster(pace_s=0.005)
    against(cluster, act)


@pytest.mark.parametrize("error", [EncoderLost("gone", stream_id="s"), ClusterUnavailable("away")])
def test_what_may_be_back_is_waited_for(error: Exception) -> None:
    cluster = MortalCluster()
    cluster.start_errors.append(error)
    ingested(cluster, shots(3))
    assert cluster.seqs() == [0, 1, 2]


def test_what_waiting_does_not_mend_is_raised_at_once() -> None:
    cluster = MortalCluster()
    cluster.start_errors.append(StoreFull("no space left", path="/data"))
    with pytest.raises(StoreFull, match="no space left") as full:
        ingested(cluster, shots(3))
    assert full.value.ids == {"path": "/data"}


def test_patience_ends() -> None:
    async def act(client: AsyncClient, serving: Running) -> None:
        async def live() -> AsyncIterator[Shot]:
            for shot in shots(3):
                yield shot
            await until(lambda: len(cluster.seqs()) == 3)
            await serving.stop()
            yield Shot(3, 3.0, colour(3))

        with pytest.raises(ClusterUnavailable, match=f"no service answers at {serving.address}") as gave_up:
            await client.ingest("s", live(), options=IngestOptions(patience_s=0.5))
        assert gave_up.value.ids == {"address": serving.address}

    cluster = MortalCluster()
    against(cluster, act)


def test_frames_that_end_every_server_are_not_sent_for_ever() -> None:
    cluster = MortalCluster(die_at=deque(range(1, 1000)))
    with pytest.raises(ClusterUnavailable):
        ingested(cluster, shots(10), options=IngestOptions(patience_s=1.0))


def test_cancelled_it_lets_go_of_its_threads() -> None:
    async def act(client: AsyncClient, _: Running) -> None:
        pushing = asyncio.create_task(client.ingest("s", shots(10_000)))
        await until(lambda: bool(cluster.seqs()))
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing

    cluster = MortalCluster(pace_s=0.005)
    against(cluster, act)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cacheflow-")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds at four frames a second; every frame is grey, and brighter than the last."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, (np.full((48, 64, 3), 10 * idx, np.uint8) for idx in range(24)), fps=4)
    return path


def pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_file_is_sampled_at_the_streams_rate_and_sent_as_jpegs(clip: Path) -> None:
    cluster, told = MortalCluster(die_at=deque([5])), list[IngestProgress]()
    cluster.fps = 2.0
    options = IngestOptions(settings=StreamSettings(fps=2.0), labels={"room": "3"})
    view = ingested(cluster, clip, options=options, progress=told.append)

    kept = cluster.streams["s"]
    assert cluster.seqs() == list(range(12)) and kept.new.settings == StreamSettings(fps=2.0)
    assert [frame.timestamp_s for frame in kept.frames] == [idx / 2 for idx in range(12)]
    assert kept.new.labels == {"room": "3"} and view.info.complete
    assert kept.frames[0].data.startswith(b"\xff\xd8") and pixels(kept.frames[3].data).shape == (48, 64, 3)
    assert (told[-1].duration_s, told[-1].total_frames, told[-1].position_s) == (6.0, 12, 5.5)


def test_raw_frames_are_exact(clip: Path) -> None:
    cluster = MortalCluster()
    cluster.fps = None
    ingested(cluster, str(clip), options=IngestOptions(payload=PayloadKind.RGB))

    with open_source(clip, fps=None) as source:
        for sent, frame in zip(cluster.streams["s"].frames, source, strict=True):
            assert (sent.height, sent.width, sent.data) == (48, 64, frame.image.tobytes())


def test_a_video_file_is_sent_as_it_is_and_from_its_start_after_each_failure(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(range(256)) * 40960)
    cluster = MortalCluster(credit_bytes=3_000_000, die_at=deque([2, 4]), pace_s=0.01)
    view = ingested(cluster, path, options=IngestOptions(payload=PayloadKind.CONTAINER))

    assert not cluster.die_at and cluster.streams["s"].file == path.read_bytes() and view.info.complete


def test_a_camera_is_left_open_and_goes_on_after_what_the_stream_has(tmp_path: Path) -> None:
    """A pipe stands for it: of unknown length, and from its start each time it is opened."""
    recorded, pipe = tmp_path / "recorded.ts", tmp_path / "camera"
    write_video(recorded, (np.full((48, 64, 3), 10 * idx, np.uint8) for idx in range(12)), fps=4)
    os.mkfifo(pipe)
    cluster = MortalCluster(fps=2.0)
    for _ in range(2):
        threading.Thread(target=lambda: pipe.write_bytes(recorded.read_bytes())).start()
        view = ingested(cluster, pipe)
        assert not view.info.complete

    frames = cluster.streams["s"].frames
    num = len(frames) // 2
    assert cluster.seqs() == list(range(2 * num)) and num >= 5
    times = np.array([frame.timestamp_s for frame in frames])
    assert np.allclose(np.diff(times[num - 1 :]), 0.5, atol=0.1) and (np.diff(times) > 0).all()
    assert frames[0].data == frames[num].data


@pytest.mark.parametrize("quality", [50, 95])
def test_quality_is_that_of_the_jpegs(quality: int) -> None:
    cluster, noise = MortalCluster(), np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    ingested(cluster, [Shot(0, 0.0, noise)], options=IngestOptions(quality=quality))

    expected = io.BytesIO()
    Image.fromarray(noise).save(expected, format="JPEG", quality=quality)
    assert cluster.streams["s"].frames[0].data == expected.getvalue()


@pytest.mark.parametrize(
    ("source", "options", "raised"),
    [
        ("nowhere.mp4", IngestOptions(), SourceNotFound),
        ("nowhere.mp4", IngestOptions(payload=PayloadKind.CONTAINER), SourceNotFound),
        (io.BytesIO(b"no video"), IngestOptions(), UnsupportedMedia),
        ([Shot(0, 0.0, "text")], IngestOptions(), UnsupportedMedia),
        ([Shot(0, 0.0, np.zeros((4, 4), np.uint8))], IngestOptions(), UnsupportedMedia),
        ([Shot(0, 0.0, b"jpeg")], IngestOptions(payload=PayloadKind.RGB), UnsupportedMedia),
        ([Shot(1, 0.0, colour(0)), Shot(1, 0.0, colour(0))], IngestOptions(), UsageError),
        ([], IngestOptions(payload=PayloadKind.CONTAINER), UsageError),
    ],
)
def test_a_source_that_is_none_is_named_before_or_when_it_is_met(
    source: Any, options: IngestOptions, raised: type[Exception]
) -> None:
    cluster = MortalCluster()
    with pytest.raises(raised):
        ingested(cluster, source, options=options)
    assert not (isinstance(source, str) and cluster.streams)


@pytest.mark.parametrize(
    "given", [{"quality": 0}, {"quality": 101}, {"patience_s": -1.0}, {"patience_s": float("nan")}]
)
def test_options_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(given))):
        IngestOptions(**given)
