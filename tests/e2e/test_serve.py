"""`cacheflow serve` as a process of its own: it says where it serves, serves, and closes without losing anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray.cli.app import run
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.media import write_video
from tests.e2e.commands import MODEL
from tests.oracles import moving_frames

FRAMES = moving_frames(24)
LINE = ("--port", "0", "--model", MODEL, "--device", "cpu", "--dtype", "float32", "--json")


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process, and what it said once it served. It has a group of its own, as a terminal gives it."""
    command = [sys.executable, "-m", "cacheflow_ray.cli", "serve", "--data", str(data), *LINE, *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def test_it_serves_until_it_is_told_to_end_and_all_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, data = tmp_path / "clip.mp4", tmp_path / "data"
    write_video(clip, (frame.image for frame in FRAMES), fps=4)

    def told(*line: str) -> Any:
        assert run([*line, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    with serving(data, "--encoders", "2") as (process, said):
        assert (said["encoders"], said["model"], said["data"], said["detached"]) == (2, MODEL, str(data), False)
        server = ("--server", said["address"])
        (report,) = told("ingest", str(clip), "--fps", "4", *server)["streams"]
        answer = told("ask", "clip", "What is there?", "--max-new-tokens", "4", *server)
        assert report["frames"] == 24 and answer["evidence"]
        actors = {own["name"]: own["alive"] for own in told("top", *server)["actors"]}
        assert all(actors.values()) and actors.keys() >= {"encoder-0", "encoder-1", "answerer-0", "store-0"}

        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "") and err.startswith("closing: ") and err.count("\n") == 1

    (info,) = told("streams", "list", "--data", str(data))["streams"]
    assert (info["stream"], info["frames"], info["complete"]) == ("clip", 24, True)
    again = told("ask", "clip", "What is there?", "--max-new-tokens", "4", "--data", str(data), "--dtype", "float32")
    assert (again["text"], again["evidence"]) == (answer["text"], answer["evidence"])


@pytest.mark.slow
def test_what_keeps_it_from_serving_is_told_in_one_line(tmp_path: Path) -> None:
    with VideoMemory.open(tmp_path / "data"), serving(tmp_path / "data") as (process, said):
        assert process.wait(timeout=120) == 1
        assert said["error"]["type"] == "StoreLocked" and f"process {os.getpid()}" in said["error"]["message"]
        assert process.stderr is not None
        assert process.stderr.read() == f"error: {said['error']['message']}\n"
