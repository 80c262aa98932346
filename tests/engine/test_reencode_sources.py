"""Sources of dropped KV that are gone, changed, moved or not to be read, and limits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from cacheflow_ray.config import AskOptions, Reencoding
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.opened import Backend, open_stream
from cacheflow_ray.engine.reencode import recover
from cacheflow_ray.engine.sources import Access
from cacheflow_ray.engine.writer import StreamWriter
from cacheflow_ray.errors import NothingToAnswer
from cacheflow_ray.media import Encoding, open_source, write_video
from cacheflow_ray.models import VideoModel
from memory_store import KvDropped, Retention, TimeRange
from tests.engine.archives import B_FRAMES, archived, asked, left_out, write_source
from tests.oracles import FPS, distance, moving_frames, settings, stored_kv, toy_model


@pytest.fixture(scope="module")
def llava() -> VideoModel:
    return toy_model("tiny-llava-onevision")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("video"))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(b"not a video any more" * 50), "is not a video"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "cut short or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"), "its size or content differs"),
        (lambda path: write_video(path, [f.image for f in moving_frames(45, seed=5)], fps=FPS), "content differs"),
    ],
    ids=["gone", "no video", "cut", "other last byte", "other video"],
)
def test_a_source_that_is_not_there_any_more_is_told(
    llava: VideoModel, video: Path, tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    source = tmp_path / "source.mp4"
    source.write_bytes(video.read_bytes())
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        archived(memory, source)
        spoil(source)
        told = left_out(asked(memory))
        assert why in told and str(source) in told
        with pytest.raises(NothingToAnswer, match=r"nothing is left of stream 's' to answer from: .*source.mp4"):
            memory.ask("s", "what?", options=AskOptions(time_range=TimeRange(start_s=0.0, end_s=2.0)))
        with pytest.raises(KvDropped, match="re-encode needed"):  # the window is wanted, whatever it takes
            memory.ask("s", "what?", options=AskOptions(top_k=0, window_blocks=6))


def test_damage_amid_a_file_of_the_same_size_is_seen_in_its_pictures(llava: VideoModel, tmp_path: Path) -> None:
    """Size, head and tail are what a file is known by; a block's own frame tells of the rest."""
    source, rng = tmp_path / "noise.mp4", np.random.default_rng(0)
    noise = [rng.integers(0, 255, (256, 256, 3), dtype=np.uint8) for _ in range(40)]
    write_video(source, noise, fps=FPS, codec=Encoding(options={"crf": "4", "g": "10", "preset": "ultrafast"}))
    whole = source.read_bytes()
    assert len(whole) > 4 << 20
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        archived(memory, source, tau=2.0)
        middle = len(whole) // 2
        source.write_bytes(whole[: middle - 500_000] + bytes(1_000_000) + whole[middle + 500_000 :])
        spoilt = (middle - 500_000) / len(whole) * 20, (middle + 500_000) / len(whole) * 20
        inside = AskOptions(time_range=TimeRange(start_s=spoilt[0] + 1, end_s=spoilt[1] - 1), top_k=2, max_new_tokens=1)
        with pytest.raises(NothingToAnswer, match=r"noise.mp4' is not what the stream was made from"):
            memory.ask("s", "what?", options=inside)
        early = AskOptions(time_range=TimeRange(start_s=0.0, end_s=2.0), top_k=2, max_new_tokens=1)
        assert memory.ask("s", "what?", options=early).result.reencoded is not None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An http address and the file it gives, whole and from the start only."""
    path = tmp_path / "there.mkv"

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/there.mkv", path
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_read_again_and_known_by_its_pictures(
    llava: VideoModel, site: tuple[str, Path], tmp_path: Path
) -> None:
    address, path = site
    write_video(path, [frame.image for frame in moving_frames(45)], fps=FPS, codec=B_FRAMES)
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        archived(memory, address)
        found = asked(memory)
        assert found.reencoded is not None and found.reencoded.source == address
        write_video(path, [frame.image for frame in moving_frames(45, seed=1)], fps=FPS, codec=B_FRAMES)
        assert "shows another picture" in left_out(asked(memory, warm_up_blocks=0))
        path.unlink()
        assert address in left_out(asked(memory, warm_up_blocks=0))


def test_what_was_pushed_has_no_source(llava: VideoModel, tmp_path: Path) -> None:
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        backend = Backend(model=llava, store=memory.store)
        writer = StreamWriter(backend, "s", settings=settings(tau=0.9))
        memory.store.set_retention("s", Retention(summary_only_after_s=0.0))
        writer.push(moving_frames(45))
        writer.finish()
        assert "the stream was pushed" in left_out(asked(memory))


def test_a_source_that_was_moved_can_be_named(llava: VideoModel, video: Path, tmp_path: Path) -> None:
    source, other = tmp_path / "source.mp4", tmp_path / "other.mp4"
    source.write_bytes(video.read_bytes())
    write_video(other, [frame.image for frame in moving_frames(33, seed=9)], fps=FPS, codec=B_FRAMES)
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        archived(memory, source)
        wanted = asked(memory, warm_up_blocks=99)
        source.rename(tmp_path / "moved.mp4")
        assert "its size or content differs" in left_out(asked(memory, source=str(other)))
        found = asked(memory, source=str(tmp_path / "moved.mp4"))
        assert found.reencoded is not None and found.reencoded.source == str(tmp_path / "moved.mp4")
        assert wanted.reencoded is not None and found.reencoded.block_idxs == wanted.reencoded.block_idxs


def test_frames_that_only_look_alike_are_no_exact_source(llava: VideoModel, video: Path, tmp_path: Path) -> None:
    """What was pushed from a file, as JPEGs, can be had from the file; its pixels are not quite those."""
    with open_source(video, fps=FPS) as source:
        frames = list(source)
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        writer = StreamWriter(Backend(model=llava, store=memory.store), "s", settings=settings(tau=0.9))
        memory.store.set_retention("s", Retention(summary_only_after_s=0.0))
        writer.push(replace(frame, image=np.clip(frame.image, 1, 254)) for frame in frames)
        writer.finish()
        found = asked(memory, warm_up_blocks=99, source=str(video))
        assert found.reencoded is not None and found.reencoded.looks_other and not found.reencoded.exact_idxs
        assert "its pictures differ a little from what they were" in found.warnings[0]


def test_limits_hold_and_the_best_come_first(llava: VideoModel, video: Path, tmp_path: Path) -> None:
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        backend = archived(memory, video, block_size=8)
        assert "switched off" in left_out(asked(memory, allowed=False))
        assert "a question re-encodes 0 blocks at most" in left_out(asked(memory, max_blocks=0))
        assert "0.0001 s were not enough" in left_out(asked(memory, max_seconds=0.0001))
        opened = open_stream(backend, "s")
        wanted = [5, 1, 7, 3]
        assert set(memory.store.without_kv("s", wanted)) == set(wanted)
        limits = Reencoding(max_blocks=2, warm_up_blocks=0)
        two = recover(backend, opened, wanted, limits)
        assert sorted(two.kv) == [1, 5] and sorted(two.left_out) == [3, 7]
        four = recover(backend, opened, wanted, limits)
        assert sorted(four.kv) == [1, 3, 5, 7], "what was made before costs nothing again"


def test_blocks_near_each_other_share_a_warm_up(llava: VideoModel, video: Path, tmp_path: Path) -> None:
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        memory.ingest(video, stream="kept", settings=settings(tau=0.9, block_size=8))
        backend = archived(memory, video, block_size=8)
        opened, limits = open_stream(backend, "s"), Reencoding(warm_up_blocks=1)
        kept = stored_kv(backend, "kept").split(opened.spec.block_size, dim=3)
        alone, together = recover(backend, opened, [7], limits), recover(backend, opened, [5, 3, 7], limits)
        assert together.report is not None and together.report.block_idxs == (3, 5, 7)
        assert torch.equal(together.kv[7], alone.kv[7]), "what was made is kept"
        backend = Backend(model=llava, store=memory.store)  # and has forgotten it
        together = recover(backend, opened, [5, 3, 7], limits)
        assert distance(together.kv[7], kept[7]) < distance(alone.kv[7], kept[7]) / 2


def test_a_service_reads_no_file_outside_its_folder(video: Path, tmp_path: Path) -> None:
    inside = Access(root=video.parent)
    assert inside.refusal(str(video)) is None
    assert "is not below --source-root" in str(inside.refusal(str(video.parent / ".." / "x.mp4")))
    assert "is not below --source-root" in str(Access(root=None).refusal(str(video)))
    (tmp_path / "link.mp4").symlink_to(video)
    assert "is not below" in str(Access(root=tmp_path).refusal(str(tmp_path / "link.mp4")))
    os.mkfifo(tmp_path / "pipe")
    assert "neither file nor folder" in str(Access().refusal(str(tmp_path / "pipe")))
    assert Access(root=None).refusal("https://example.org/a.mp4") is None
    assert "cannot be read twice" in str(Access().refusal("rtsp://example.org/a"))
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert "cannot be found" in str(Access().refusal(str(tmp_path / "round")))


def test_a_folder_of_images_is_a_source_too(llava: VideoModel, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for frame in moving_frames(30):
        Image.fromarray(frame.image).save(folder / f"{frame.seq}.png")
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        memory.ingest(folder, stream="kept", settings=settings(tau=0.9))
        archived(memory, folder)
        found, wanted = asked(memory, warm_up_blocks=99), asked(memory, "kept")
        assert found.reencoded is not None and found.text == wanted.text
