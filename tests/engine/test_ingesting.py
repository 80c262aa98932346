"""Where an ingest goes on: files at the frame they stopped at, cameras after their last one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.media import write_video
from cacheflow_ray.models import VideoModel
from tests.oracles import moving_frames, save_toy, settings, toy_model


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return toy_model("tiny-llava-onevision")


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[str]:
    """Sends the same 5 seconds of MPEG-TS at every connection, without saying how long it will be."""
    write_video(tmp_path / "camera.ts", [frame.image for frame in moving_frames(10)], fps=2.0)
    sent = (tmp_path / "camera.ts").read_bytes()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/camera.ts"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_camera_goes_on_after_its_last_frame(camera: str, model: VideoModel, tmp_path: Path) -> None:
    with VideoMemory.open(tmp_path / "data", model=model) as memory:
        reports = [memory.ingest(camera, stream="door", settings=settings(tau=2.0)) for _ in range(3)]
        assert [report.frames for report in reports] == [10, 20, 30]
        assert [report.resumed_from_seq for report in reports] == [0, 10, 20]
        assert not any(report.already_complete for report in reports)
        tokens = [token for block in memory.blocks("door") for token in block.tokens]
    assert sorted({int(token["frame_idx"]) for token in tokens}) == list(range(30))
    times = sorted({round(float(token["timestamp_s"]), 3) for token in tokens})
    assert times == [seq / 2 for seq in range(30)], "each connection begins a sampling interval after the last frame"


def test_a_stream_is_made_as_the_model_recommends(tmp_path: Path) -> None:
    folder = save_toy("tiny-llava-onevision", tmp_path / "model")
    (folder / "cacheflow.json").write_text('{"stream": {"tau": 0.8, "block_size": 8}, "ask": {"top_k": 1}}')
    video = tmp_path / "clip.mp4"
    write_video(video, [frame.image for frame in moving_frames(6)], fps=2.0)
    with VideoMemory.open(tmp_path / "data", model=str(folder)) as memory:
        memory.ingest(video, stream="plain", settings=StreamSettings(block_size=9, window_blocks=0, fps=2.0))
        made = memory.stream("plain").settings
        assert (made["tau"], made["block_size"], made["fps"]) == (0.8, 9, 2.0)
        answer = memory.ask("plain", "what?", options=AskOptions(max_new_tokens=1)).result
    assert answer.usage.retrieved_blocks == 1


def test_blocks_too_small_for_a_summary_are_refused_before_a_stream_is_made(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    write_video(video, [frame.image for frame in moving_frames(6)], fps=2.0)
    with VideoMemory.open(tmp_path / "data", model=toy_model("tiny-llava-onevision")) as memory:
        with pytest.raises(InvalidConfig, match="needs blocks of at least 8 tokens, not 4: choose larger blocks"):
            memory.ingest(video, stream="small", settings=StreamSettings(block_size=4, summary="recurrent8"))
        assert memory.streams() == []
