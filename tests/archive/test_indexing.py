"""One file after the other, with a real model, store and decoder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.finding import Found
from cacheflow_ray.archive.indexing import FileIndexer, Wanted
from cacheflow_ray.archive.meter import Meter
from cacheflow_ray.archive.planning import planned
from cacheflow_ray.archive.records import FileRecord, FileState
from cacheflow_ray.config import EncoderOptions, IndexOptions
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.pool import EncoderPool
from cacheflow_ray.media import write_video
from cacheflow_ray.models import VideoModel
from memory_store import Store
from memory_store.records import Retention
from tests.oracles import FPS, moving_frames, settings, toy_model

WANTED = Wanted(settings=settings(), options=IndexOptions(retries=2, retry_wait_s=0.0))


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """Files in memory that cannot be opened the first times."""

    protocol = "flaky"
    failures: ClassVar[list[OSError]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("flaky://", "memory://"))
        return stripped

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if self.failures:
            raise self.failures.pop()
        return super()._open(path, *args, **kwargs)


@pytest.fixture(scope="module")
def llava() -> VideoModel:
    return toy_model("tiny-llava-onevision")


class Desk:
    """An indexer over a store, and what it is told."""

    def __init__(self, backend: Backend, store: Store, wanted: Wanted = WANTED) -> None:
        self.backend, self.store, self.books = backend, store, Books(store.ledger)
        self.meter, self.stop = Meter(), threading.Event()
        self.pool = EncoderPool(backend, EncoderOptions(commit_interval_s=0.05))
        self.indexer = FileIndexer(backend, self.pool, self.books, wanted, self.meter, self.stop.wait)

    def found(self, *uris: str | Path, **more: Any) -> list[FileRecord]:
        """Plan files, as a run does."""
        known = {record.uri: record for record in self.books.files()}
        plan = planned([Found(uri=str(uri), name=Path(str(uri)).stem) for uri in uris], known, job="1", **more)
        self.books.put_files(plan)
        return plan

    def index(self, *uris: str | Path, **more: Any) -> list[FileRecord]:
        self.found(*uris, **more)
        return [self.indexer.index(str(uri)) for uri in uris]


@pytest.fixture
def desk(llava: VideoModel, tmp_path: Path) -> Iterator[Desk]:
    with Store.open(tmp_path / "data") as store:
        desk = Desk(Backend(model=llava, store=store), store)
        yield desk
        desk.pool.close(10)


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "clip.mp4", count: int = 16, seed: int = 0) -> Path:
        write_video(tmp_path / name, [frame.image for frame in moving_frames(count, seed=seed)], fps=FPS)
        return tmp_path / name

    return write


def test_a_video_becomes_a_stream_and_its_record_tells_of_it(desk: Desk, video: Callable[..., Path]) -> None:
    path = video()
    (record,) = desk.index(path, labels={"k": "v"})
    stored = desk.store.get_stream("clip")
    assert (record.state, record.frames, record.attempts) == (FileState.DONE, 16, 1)
    assert record.blocks == desk.store.stats("clip").num_blocks > 0
    assert record.video_s == pytest.approx(15 / FPS) and len(record.content) == 32
    assert stored.labels == {"k": "v"} and stored.settings["read_from"] == str(path)
    assert desk.books.file(str(path)) == record
    counts = desk.meter.take()
    assert (counts.frames, counts.tokens_seen) == (16, record.tokens_seen)
    assert counts.video_s == pytest.approx(16 / FPS) and counts.decode_s > 0


def test_what_is_done_is_not_done_again(desk: Desk, video: Callable[..., Path]) -> None:
    path = video()
    assert desk.index(path) == desk.index(path)
    assert desk.books.file(str(path)).attempts == 1  # type: ignore[union-attr]


def test_of_files_with_one_content_one_is_indexed(desk: Desk, video: Callable[..., Path], tmp_path: Path) -> None:
    path = video()
    copies = [tmp_path / f"copy-{at}.mp4" for at in range(3)]
    for copy in copies:
        copy.write_bytes(path.read_bytes())
    desk.found(path, *copies)
    with ThreadPoolExecutor(4) as threads:
        records = list(threads.map(desk.indexer.index, map(str, [path, *copies])))
    assert sorted(own.state for own in records) == [FileState.DONE, *[FileState.SKIPPED] * 3]
    name = next(own.stream for own in records if own.state is FileState.DONE)
    assert {own.reason for own in records} == {"", f"the same content as stream {name!r}"}
    assert [own.stream_id for own in desk.store.list_streams()] == [name]


def test_what_is_no_video_fails_for_good_and_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    (record,) = desk.index(tmp_path / "noise.mp4")
    assert (record.state, record.transient, record.attempts) == (FileState.FAILED, False, 1)
    assert "noise.mp4" in record.reason and desk.store.list_streams() == []


def test_a_file_that_is_gone_fails(desk: Desk, tmp_path: Path) -> None:
    (record,) = desk.index(tmp_path / "gone.mp4")
    assert (record.state, record.transient) == (FileState.FAILED, False) and "check the path" in record.reason


@pytest.mark.parametrize(("failures", "state", "attempts"), [(2, FileState.DONE, 3), (3, FileState.FAILED, 3)])
def test_what_may_pass_is_tried_again(
    desk: Desk, video: Callable[..., Path], failures: int, state: FileState, attempts: int
) -> None:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    fsspec.filesystem("flaky").pipe_file("/box/clip.mp4", video().read_bytes())
    Flaky.failures[:] = [OSError("the network is down") for _ in range(failures)]
    (record,) = desk.index("flaky://box/clip.mp4")
    assert (record.state, record.attempts, record.transient) == (state, attempts, state is FileState.FAILED)
    (record,) = desk.index("flaky://box/clip.mp4")
    assert record.state is FileState.DONE and "read_from" not in desk.store.get_stream("clip").settings


def test_stopped_in_the_midst_it_goes_on_where_it_was(
    desk: Desk, video: Callable[..., Path], llava: VideoModel, tmp_path: Path
) -> None:
    path = video(count=64)
    desk.found(path)
    with ThreadPoolExecutor(1) as thread:
        indexing = thread.submit(desk.indexer.index, str(path))
        while not desk.meter.take().frames:
            assert not indexing.done()
        desk.stop.set()
        assert indexing.result().state is FileState.PENDING
    first = desk.store.stats("clip").num_blocks
    desk.stop.clear()
    record = desk.indexer.index(str(path))
    assert (record.state, record.frames, record.attempts) == (FileState.DONE, 64, 2)
    assert 0 < first < record.blocks and desk.meter.take().frames < 64


def test_a_file_with_other_content_than_its_stream_is_refused(desk: Desk, video: Callable[..., Path]) -> None:
    path = video()
    desk.index(path)
    video(seed=1)
    (record,) = desk.index(path)
    assert record.state is FileState.FAILED and "delete the stream" in record.reason


def test_a_stream_made_otherwise_is_refused_and_the_others_go_on(
    desk: Desk, video: Callable[..., Path], llava: VideoModel
) -> None:
    path = video()
    (record,) = desk.index(path)
    desk.books.put_files([replace(record, state=FileState.PENDING)])
    other = FileIndexer(
        desk.backend, desk.pool, desk.books, replace(WANTED, settings=settings(tau=0.5)), desk.meter, desk.stop.wait
    )
    record = other.index(str(path))
    assert (record.state, record.transient) == (FileState.FAILED, False) and "tau" in record.reason


def test_an_archive_may_keep_summaries_alone(llava: VideoModel, video: Callable[..., Path], tmp_path: Path) -> None:
    wanted = replace(WANTED, retention=Retention(summary_only_after_s=0.0))
    with Store.open(tmp_path / "data") as store:
        desk = Desk(Backend(model=llava, store=store), store, wanted)
        (record,) = desk.index(video(count=40))
        desk.pool.close(10)
        store.upkeep.housekeep()
        assert len(store.without_kv("clip", range(record.blocks))) == record.blocks - settings().window_blocks
