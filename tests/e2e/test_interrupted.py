"""Work cut short at any instant goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import cacheflow_ray.engine
from cacheflow_ray.cli.app import run
from cacheflow_ray.media import Encoding, write_video
from tests.e2e.commands import MODEL, Command, Stored, stored
from tests.e2e.processes import Process, frames_kept
from tests.oracles import moving_frames

H264 = Encoding(options={"preset": "ultrafast", "crf": "20"})
FRAMES = 400

#: Tokens dropped, blocks that frames straddle, a window of a few blocks: there is a state to get wrong.
PLAIN = ("--fps", "all", "--tau", "0.98", "--block-size", "15", "--window", "3")

#: More state: frames merged in pairs and an odd one waiting, a gate's view, a threshold per frame.
RICH = (*PLAIN, "--adaptive", "--reference", "last_kept", "--pixel-gate", "8", "--summary", "gru")
KINDS = pytest.mark.parametrize(
    ("model", "settings"), [(MODEL, PLAIN), ("random:tiny-qwen2.5-vl", RICH)], ids=["plain", "rich"]
)


def clip(path: Path, count: int, seed: int = 0) -> Path:
    """`count` frames, 100 to the second; of every five, two stand still."""
    images = [frame.image for frame in moving_frames(count, seed=seed)]
    write_video(path, (images[i - max(0, i % 5 - 2)] for i in range(count)), fps=100, codec=H264)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("clips") / "film.mp4", FRAMES)


def is_prefix(part: Stored, whole: Stored) -> bool:
    return whole.starts_with(part) and (part.state is None or part.state.num_blocks * 15 == len(part.tokens))


@KINDS
def test_an_ingest_killed_again_and_again_ends_as_if_it_never_was(
    model: str, settings: tuple[str, ...], video: Path, tmp_path: Path, cacheflow: Command
) -> None:
    line = ("ingest", video, "--model", model, *settings, "--data")
    cacheflow(*line, tmp_path / "whole").said  # noqa: B018
    whole, data = stored(tmp_path / "whole", "film"), tmp_path / "data"
    rng, kills = np.random.default_rng(0), 0
    for wanted in (1, 80, 160, 240):
        process = Process(tmp_path, *line, data)
        assert process.wait_until(lambda wanted=wanted: frames_kept(data) >= wanted)
        time.sleep(rng.uniform(0, 0.05))
        kills += process.send(signal.SIGKILL) == -signal.SIGKILL
        if frames_kept(data):
            assert is_prefix(stored(data, "film"), whole)
    assert kills >= 3
    report = cacheflow(*line, data).said["streams"][0]
    assert 0 < report["resumed_from_seq"] < report["frames"] == FRAMES
    assert stored(data, "film") == whole


def test_ingest_of_what_is_complete_changes_nothing(
    video: Path, tmp_path: Path, cacheflow: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ("ingest", video, "--model", MODEL, *PLAIN, "--data", tmp_path)
    first = cacheflow(*line).said["streams"][0]
    before = {path.name: path.read_bytes() for path in (tmp_path / "shard-0000").glob("data.*")}
    again = cacheflow(*line).said["streams"][0]
    assert again["already_complete"] and not first["already_complete"] and again["blocks"] == first["blocks"]
    assert run([*map(str, line)]) == 0
    assert f"film: complete already, {first['blocks']} blocks" in capfd.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "shard-0000").glob("data.*")} == before


def test_two_sources_killed_together_go_on_together(video: Path, tmp_path: Path, cacheflow: Command) -> None:
    other = clip(tmp_path / "other.mp4", FRAMES // 2, seed=5)
    line = ("ingest", video, other, "--model", MODEL, *PLAIN, "--data")
    cacheflow(*line, tmp_path / "whole").said  # noqa: B018
    data = tmp_path / "data"
    for wanted in (1, 150, 350):
        process = Process(tmp_path, *line, data)
        assert process.wait_until(lambda wanted=wanted: frames_kept(data) >= wanted)
        assert process.send(signal.SIGKILL) == -signal.SIGKILL
    reports = cacheflow(*line, data).said["streams"]
    assert [(report["stream"], report["frames"]) for report in reports] == [("film", FRAMES), ("other", FRAMES // 2)]
    for name in ("film", "other"):
        found, wanted = stored(data, name), stored(tmp_path / "whole", name)
        assert (found.state, found.thumbnails) == (wanted.state, wanted.thumbnails)
        assert np.array_equal(found.tokens, wanted.tokens)
        np.testing.assert_allclose(found.kv, wanted.kv, rtol=0, atol=1e-5)  # calls were composed otherwise


def test_ctrl_c_says_that_it_can_go_on(video: Path, tmp_path: Path, cacheflow: Command) -> None:
    line = ("ingest", video, "--model", MODEL, *PLAIN, "--data", tmp_path / "data")
    process = Process(tmp_path, *line)
    assert process.wait_until(lambda: frames_kept(tmp_path / "data") > 0)
    assert process.send(signal.SIGINT) == 130
    last = process.complained.splitlines()[-1]
    assert last == "error: interrupted: what was seen is kept; the same command again goes on with film"
    assert "Traceback" not in process.complained
    report = cacheflow(*line).said["streams"][0]
    assert 0 < report["resumed_from_seq"] < report["frames"] == FRAMES


def test_a_question_is_answered_while_another_process_ingests(video: Path, tmp_path: Path, cacheflow: Command) -> None:
    line = ("ingest", video, "--model", MODEL, *PLAIN, "--data")
    cacheflow(*line, tmp_path / "whole").said  # noqa: B018
    process = Process(tmp_path, *line, tmp_path / "data")
    assert process.wait_until(lambda: frames_kept(tmp_path / "data") > 0)
    answer = cacheflow("ask", "film", "What moves?", "--data", tmp_path / "data", "--max-new-tokens", "2")
    assert process.is_running, "the question came too late to test anything"
    assert answer.said["evidence"] and answer.said["session_id"] is None
    assert cacheflow("search", "film", "a patch", "--data", tmp_path / "data").said["evidence"]
    assert process.wait() == 0, process.complained
    assert stored(tmp_path / "data", "film") == stored(tmp_path / "whole", "film")


def test_the_installed_command_killed_while_it_works_can_be_run_again(
    video: Path, tmp_path: Path, cacheflow: Command
) -> None:
    """The same through a new interpreter, as a shell starts it."""
    line = ("ingest", str(video), "--model", MODEL, *PLAIN, "--data", str(tmp_path / "data"))
    with subprocess.Popen([sys.executable, "-m", "cacheflow_ray.cli", *line], stderr=subprocess.PIPE) as process:
        while not frames_kept(tmp_path / "data"):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert cacheflow(*line).said["streams"][0]["resumed_from_seq"] > 0


class CtrlC:
    """Raises KeyboardInterrupt where line number `at` of the engine's is about to run, counted from the start."""

    def __init__(self, at: int) -> None:
        self.at, self.lines = at, 0
        self._engine = str(Path(cacheflow_ray.engine.__file__).parent)

    def __enter__(self) -> CtrlC:
        sys.settrace(lambda frame, _event, _arg: self._line if self._engine in frame.f_code.co_filename else None)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _line(self, _frame: FrameType, event: str, _arg: Any) -> Any:
        self.lines += event == "line"
        if event == "line" and self.lines == self.at:
            raise KeyboardInterrupt
        return self._line


@KINDS
def test_ctrl_c_at_any_line_of_the_engine_loses_and_doubles_nothing(
    model: str, settings: tuple[str, ...], tmp_path: Path, cacheflow: Command
) -> None:
    line = ("ingest", clip(tmp_path / "film.mp4", 75), "--model", model, *settings, "--data")
    with CtrlC(at=-1) as counted:
        cacheflow(*line, tmp_path / "whole").said  # noqa: B018
    whole = stored(tmp_path / "whole", "film")
    for at in np.random.default_rng(0).integers(1, counted.lines, 12):
        data = tmp_path / f"data{at}"
        with CtrlC(at=int(at)):
            assert cacheflow(*line, data).code == 130
        assert cacheflow(*line, data).said["streams"][0]["frames"] == 75
        assert stored(data, "film") == whole
