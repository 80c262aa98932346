"""Streams pushed to a pool: the same memory as in one go, equal shares, bounded queues, failures that stay alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np
import pytest
import torch

from cacheflow_ray.config import EncoderOptions
from cacheflow_ray.engine.creating import WantedStream, ensure_stream
from cacheflow_ray.engine.opened import Backend, open_stream
from cacheflow_ray.engine.pool import EncoderPool, StepReport
from cacheflow_ray.engine.position import End, Overload, Position
from cacheflow_ray.errors import BrokenMedia, ClusterUnavailable, InvalidFeatures, LimitExceeded
from cacheflow_ray.media import Frame
from cacheflow_ray.models import VideoModel
from memory_store import Commit, EpochFenced
from memory_store.testing import MemoryStore
from tests.oracles import encode, moving_frames, settings, stored, toy_model

FRAMES = moving_frames(40)


@pytest.fixture(scope="module")
def llava() -> VideoModel:
    return toy_model("tiny-llava-onevision")


@pytest.fixture
def backend(llava: VideoModel) -> Iterator[Backend]:
    with MemoryStore() as store:
        yield Backend(model=llava, store=store)


@pytest.fixture
def pool(backend: Backend) -> Iterator[EncoderPool]:
    with_pool = EncoderPool(backend, EncoderOptions(queue_frames=16, commit_interval_s=0.05))
    yield with_pool
    with_pool.close(5.0)


def opened(pool: EncoderPool, backend: Backend, name: str, overload: Overload = Overload.BLOCK) -> int:
    ensure_stream(backend, WantedStream(stream_id=name, settings=settings()))
    epoch = backend.store.claim(name)
    pool.open(name, epoch, overload)
    return epoch


def push(pool: EncoderPool, name: str, epoch: int, frames: Sequence[Frame]) -> Future[Position]:
    return pool.push(name, epoch, [partial(_same, frame) for frame in frames])


def _same(frame: Frame) -> Frame:
    return frame


def push_all(pool: EncoderPool, name: str, epoch: int, frames: Sequence[Frame], size: int = 5) -> Position:
    """In pieces, at most two under way."""
    waiting: list[Future[Position]] = []
    for at in range(0, len(frames), size):
        waiting.append(push(pool, name, epoch, frames[at : at + size]))
        if len(waiting) > 2:
            waiting.pop(0).result(30)
    return pool.finish(name, epoch, End(final=True)).result(30)


def test_a_pushed_stream_is_the_stream_that_is_ingested_in_one_go(backend: Backend, pool: EncoderPool) -> None:
    encode(backend, {"plain": FRAMES}, settings(), chunk=8)
    names = [f"pushed-{at}" for at in range(3)]
    epochs = {name: opened(pool, backend, name) for name in names}
    threads = [threading.Thread(target=push_all, args=(pool, name, epochs[name], FRAMES, 3 + at))
               for at, name in enumerate(names)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens, expected = stored(backend, "plain")
    assert backend.store.stats("plain").num_blocks > 3
    for name in names:
        own, kv = stored(backend, name)
        assert np.array_equal(own, tokens)
        np.testing.assert_allclose(kv, expected, atol=1e-5)
        state = open_stream(backend, name).state
        assert (state.complete, state.next_seq, state.counters.frames) == (True, len(FRAMES), len(FRAMES))
        assert torch.equal(state.tail.inputs, open_stream(backend, "plain").state.tail.inputs)


def test_what_a_push_was_told_is_durable(backend: Backend, pool: EncoderPool) -> None:
    epoch = opened(pool, backend, "cam")
    for at in range(0, 12, 4):
        position = push(pool, "cam", epoch, FRAMES[at : at + 4]).result(30)
        assert position.next_seq >= at + 4
        assert open_stream(backend, "cam").state.next_seq == position.next_seq
    assert pool.live()["cam"][0].frames == 12


def test_a_session_let_go_is_gone_on_with_and_frames_sent_twice_are_taken_once(
    backend: Backend, pool: EncoderPool
) -> None:
    epoch = opened(pool, backend, "cam")
    push(pool, "cam", epoch, FRAMES[:7])
    assert pool.finish("cam", epoch, End(final=False)).result(30).next_seq == 7
    later = opened(pool, backend, "cam")
    position = push_all(pool, "cam", later, FRAMES[3:20])
    assert (position.next_seq, position.frames, position.duplicates, position.complete) == (20, 20, 4, True)


def test_a_newer_session_fences_the_older(backend: Backend, pool: EncoderPool) -> None:
    first = opened(pool, backend, "cam")
    slow = pool.push("cam", first, [partial(_slow, FRAMES[0])])
    second = opened(pool, backend, "cam")
    with pytest.raises(EpochFenced):
        slow.result(30)
    with pytest.raises(EpochFenced):
        push(pool, "cam", first, FRAMES[1:2])
    assert push(pool, "cam", second, FRAMES[:2]).result(30).frames == 2


def _slow(frame: Frame) -> Frame:
    time.sleep(0.3)
    return frame


def test_a_picture_that_is_none_ends_its_own_stream_alone(backend: Backend, pool: EncoderPool) -> None:
    bad, good = opened(pool, backend, "bad"), opened(pool, backend, "good")
    broken = pool.push("bad", bad, [partial(_same, FRAMES[0]), _broken])
    fine = push(pool, "good", good, FRAMES[:4])
    with pytest.raises(BrokenMedia, match="frame 1"):
        broken.result(30)
    assert fine.result(30).frames == 4
    with pytest.raises(ClusterUnavailable, match="not open"):
        push(pool, "bad", bad, FRAMES[:1])


def _broken() -> Frame:
    raise BrokenMedia("frame 1 is not a whole image")


def test_features_that_are_not_finite_end_their_own_stream_alone(
    backend: Backend, pool: EncoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = opened(pool, backend, "bad"), opened(pool, backend, "good")
    seen: Callable[..., list[torch.Tensor]] = backend.model.vision.encode

    def spoil(units: list[list[np.ndarray]]) -> list[torch.Tensor]:
        features = list(seen(units))
        return [own * torch.nan if unit[0].max() == 0 else own for unit, own in zip(units, features, strict=True)]

    monkeypatch.setattr(backend.model.vision, "encode", spoil)
    black = [Frame(seq=f.seq, timestamp_s=f.timestamp_s, image=np.zeros_like(f.image)) for f in FRAMES]
    spoilt, fine = push(pool, "bad", bad, black[:3]), push(pool, "good", good, FRAMES[:3])
    with pytest.raises(InvalidFeatures, match="'bad'"):
        spoilt.result(30)
    assert fine.result(30).frames == 3


def test_a_store_that_refuses_one_stream_takes_the_others(backend: Backend, pool: EncoderPool) -> None:
    gone, kept = opened(pool, backend, "gone"), opened(pool, backend, "kept")
    backend.store.claim("gone")  # by another encoder
    lost, fine = push(pool, "gone", gone, FRAMES[:4]), push(pool, "kept", kept, FRAMES[:4])
    with pytest.raises(EpochFenced):
        lost.result(30)
    assert fine.result(30).next_seq == 4


@pytest.mark.parametrize("overload", [Overload.DROP_OLDEST, Overload.LOWER_FPS])
def test_what_is_too_much_is_left_out_and_told(backend: Backend, pool: EncoderPool, overload: Overload) -> None:
    epoch = opened(pool, backend, "cam", overload)
    pushes = [pool.push("cam", epoch, [partial(_slow, FRAMES[0])])]
    time.sleep(0.1)  # it is being taken
    pushes += [push(pool, "cam", epoch, FRAMES[at : at + 3]) for at in range(1, 40, 3)]
    assert [own.result(30).next_seq for own in pushes][-1] == 40
    last = pool.finish("cam", epoch, End(final=True)).result(30)
    assert last.shed > 0
    assert last.frames + last.shed == 40


def test_more_than_may_wait_is_refused(backend: Backend, pool: EncoderPool) -> None:
    epoch = opened(pool, backend, "cam")
    with pytest.raises(LimitExceeded, match="credits"):
        pool.push("cam", epoch, [partial(_slow, FRAMES[0])] * 65)


def test_every_stream_has_its_share_of_a_step(backend: Backend) -> None:
    steps: list[StepReport] = []
    all_wait = threading.Event()

    def after_step(report: StepReport) -> None:
        steps.append(report)
        all_wait.wait(30)

    pool = EncoderPool(backend, EncoderOptions(step_frames=8), on_step=after_step)
    epochs = {f"cam-{at}": opened(pool, backend, f"cam-{at}") for at in range(4)}
    first = push(pool, "cam-0", epochs["cam-0"], FRAMES[:1])
    while not steps:
        time.sleep(0.01)
    pushes = [push(pool, name, epoch, FRAMES[1:21]) for name, epoch in epochs.items()]
    time.sleep(0.3)  # they are decoded, as far as is done ahead
    all_wait.set()
    for own in (first, *pushes):
        own.result(30)
    pool.close(5.0)
    assert [(step.streams, step.frames) for step in steps] == [(1, 1), *[(4, 8)] * 10]


def test_a_picture_that_takes_for_ever_holds_up_its_own_stream_alone(backend: Backend, pool: EncoderPool) -> None:
    release = threading.Event()

    def stuck() -> Frame:
        release.wait(30)
        return FRAMES[0]

    slow, quick = opened(pool, backend, "slow"), opened(pool, backend, "quick")
    held = pool.push("slow", slow, [stuck])
    assert push(pool, "quick", quick, FRAMES[:8]).result(30).frames == 8
    assert not held.done()
    release.set()
    assert held.result(30).frames == 1


class _SlowDisk(MemoryStore):
    """Commits of the stream "slow" wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.through = threading.Event()

    def commit(self, commits: Sequence[Commit]) -> None:
        if any(own.stream_id == "slow" for own in commits):
            self.through.wait(30)
        super().commit(commits)


def test_a_slow_disk_holds_up_the_streams_of_its_own_store_alone(llava: VideoModel) -> None:
    store = _SlowDisk()
    backend = Backend(model=llava, store=store)
    pool = EncoderPool(backend, EncoderOptions(queue_frames=8), group_of=lambda name: int(name == "slow"))
    slow, quick = opened(pool, backend, "slow"), opened(pool, backend, "quick")
    held = [push(pool, "slow", slow, FRAMES[at : at + 4]) for at in range(0, 24, 4)]
    assert push_all(pool, "quick", quick, FRAMES).frames == 40
    assert not any(own.done() for own in held)
    with pytest.raises(LimitExceeded):  # what waits for the disk is bounded
        push(pool, "slow", slow, FRAMES)
    store.through.set()
    assert held[-1].result(30).frames == 24
    pool.close(10)


def test_a_stream_nobody_pushes_any_more_is_let_go(backend: Backend) -> None:
    pool = EncoderPool(backend, EncoderOptions(idle_s=0.2, commit_interval_s=0.05))
    epoch = opened(pool, backend, "cam")
    push(pool, "cam", epoch, FRAMES[:4]).result(30)
    deadline = time.monotonic() + 10
    while pool.live():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(ClusterUnavailable):
        push(pool, "cam", epoch, FRAMES[4:8])
    again = opened(pool, backend, "cam")
    assert push(pool, "cam", again, FRAMES[4:8]).result(30).frames == 8
    pool.close(5.0)


def test_closing_keeps_what_was_pushed(backend: Backend) -> None:
    pool = EncoderPool(backend, EncoderOptions())
    epoch = opened(pool, backend, "cam")
    done = push(pool, "cam", epoch, FRAMES[:9])
    pool.close(30)
    assert done.result(0).next_seq == 9
    with pytest.raises(ClusterUnavailable):
        push(pool, "cam", epoch, FRAMES[9:10])
