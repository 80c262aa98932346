"""Whole commands on real video, model and store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cacheflow_ray.cli.app import run
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.media import write_video
from memory_store.errors import StoreError
from tests.cli.asked import asked
from tests.cli.clips import SECONDS, film, paint_cards, paint_shapes, render_clips

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def wordy_model() -> Iterator[None]:
    """Random weights never end an answer: there is time to interrupt it. The bundled model says one word."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHEFLOW_MODEL", "random:tiny-llava-onevision")
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return render_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path]) -> str:
    """A store with streams 'shapes' and 'cards'."""
    folder = str(tmp_path_factory.mktemp("store"))
    assert run(["ingest", *map(str, clips.values()), "--data", folder, "--fps", "4", "--window", "2"]) == 0
    return folder


def test_several_sources_are_ingested_at_once_and_named_after_their_files(
    clips: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    sources = [str(path) for path in clips.values()]

    first = asked(capsys, "ingest", *sources, "--data", str(tmp_path), "--label", "room=3")["streams"]
    again = asked(capsys, "ingest", *sources, "--data", str(tmp_path))["streams"]

    assert [report["stream"] for report in first] == ["shapes", "cards"]
    assert all(report["frames"] == SECONDS and 0 < report["keep_rate"] < 1 for report in first)
    assert [report["already_complete"] for report in again] == [True, True]
    assert [report["blocks"] for report in again] == [report["blocks"] for report in first]
    assert asked(capsys, "streams", "show", "cards", "--data", str(tmp_path))["labels"] == {"room": "3"}


def test_a_setting_that_is_not_given_is_as_the_stream_was_made(
    store: str, clips: dict[str, Path], capsys: Capture
) -> None:
    (again,) = asked(capsys, "ingest", str(clips["cards"]), "--data", store, "--window", "2")["streams"]
    assert again["already_complete"]


def test_other_settings_for_an_existing_stream_are_refused(store: str, clips: dict[str, Path], capsys: Capture) -> None:
    assert run(["ingest", str(clips["cards"]), "--data", store, "--tau", "0.2"]) == 2
    assert "tau" in capsys.readouterr().err


def test_an_answer_is_printed_with_its_evidence(store: str, capsys: Capture) -> None:
    capsys.readouterr()
    assert run(["ask", "shapes", "What colour is the ball?", "--data", store, "--top-k", "3"]) == 0
    text = capsys.readouterr().out
    assert "retrieved" in text and "window" in text and "3 retrieved blocks" in text and "--session" in text


def test_asking_twice_gives_the_same_answer_and_evidence(store: str, capsys: Capture) -> None:
    line = ("ask", "shapes", "What colour is the ball?", "--data", store, "--max-new-tokens", "8")
    first, second = asked(capsys, *line), asked(capsys, *line)
    assert (first["text"], first["evidence"]) == (second["text"], second["evidence"])
    assert first["usage"]["retrieved_blocks"] > 0 and first["timings"]["total"] > 0


def test_a_time_range_bounds_the_evidence(store: str, capsys: Capture) -> None:
    line = ("ask", "cards", "Which number?", "--data", store, "--from", "0:10", "--to", "20", "--max-new-tokens", "4")
    evidence = asked(capsys, *line)["evidence"]
    assert evidence and all(item["end_s"] >= 10 and item["start_s"] <= 20 for item in evidence)


def test_a_session_goes_on(store: str, capsys: Capture) -> None:
    line = ("--data", store, "--max-new-tokens", "4")
    first = asked(capsys, "ask", "cards", "Which number?", *line)
    second = asked(capsys, "ask", "cards", "And then?", *line, "--session", first["session_id"])
    assert second["session_id"] == first["session_id"]
    assert (
        second["usage"]["question_tokens"]
        > asked(capsys, "ask", "cards", "And then?", *line)["usage"]["question_tokens"]
    )


def test_search_finds_no_more_than_asked_for(store: str, capsys: Capture) -> None:
    found = asked(capsys, "search", "cards", "a red card", "--data", store, "--top-k", "2")["evidence"]
    assert 1 <= len(found) <= 2 and sum(len(item["block_idxs"]) for item in found) == 2


def test_a_time_range_bounds_what_search_finds(store: str, capsys: Capture) -> None:
    line = ("search", "cards", "a red card", "--data", store, "--from", "30", "--to", "0:35")
    found = asked(capsys, *line)["evidence"]
    assert found and all(item["end_s"] >= 30 and item["start_s"] <= 35 for item in found)


def test_the_store_may_be_named_by_the_environment(
    store: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFLOW_DATA", store)
    assert [info["stream"] for info in asked(capsys, "streams", "list")["streams"]] == ["cards", "shapes"]


def test_streams_can_be_listed_shown_and_deleted(clips: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    where = ("--data", str(tmp_path))
    asked(capsys, "ingest", str(clips["cards"]), "--stream", "door", *where)

    listed = asked(capsys, "streams", "list", *where)["streams"]
    shown = asked(capsys, "streams", "show", "door", *where)

    assert listed == [shown] and shown["complete"] and shown["frames"] == SECONDS
    assert asked(capsys, "streams", "delete", "door", "--yes", *where) == {"deleted": "door"}
    assert asked(capsys, "streams", "list", *where)["streams"] == []


def test_the_model_of_a_stream_is_used_to_ask_about_it(
    clips: dict[str, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CACHEFLOW_MODEL")
    where = ("--data", str(tmp_path))
    asked(capsys, "ingest", str(clips["cards"]), "--model", "random:tiny-qwen2-vl", *where)

    assert asked(capsys, "ask", "cards", "Which number?", "--max-new-tokens", "4", *where)["usage"]["generated_tokens"]
    assert run(["ask", "cards", "Which number?", "--model", "random:tiny-llava-onevision", *where]) == 1
    assert "random:tiny-qwen2-vl" in capsys.readouterr().err


def test_pictures_are_written(store: str, tmp_path: Path, capsys: Capture) -> None:
    timeline, evidence = tmp_path / "timeline.png", tmp_path / "evidence.png"

    told = asked(capsys, "inspect", "shapes", "--data", store, "--out", str(timeline))
    asked(
        capsys, "ask", "shapes", "Which shape?", "--data", store, "--max-new-tokens", "4", "--evidence", str(evidence)
    )

    assert told["picture"] == str(timeline) and told["blocks"] > 0
    for path in (timeline, evidence):
        with Image.open(path) as picture:
            assert picture.format == "PNG" and min(picture.size) > 100


@pytest.mark.parametrize(
    ("line", "code", "kind"),
    [
        ("ingest missing.mp4", 1, "SourceNotFound"),
        ("ingest text.mp4", 1, "UnsupportedMedia"),
        ("ingest clip.mp4 --model random:huge", 1, "UnsupportedModel"),
        ("ingest clip.mp4 --model ./nowhere", 1, "ModelLoadError"),
        ("ingest clip.mp4 --summary best", 2, "InvalidConfig"),
        ("ingest clip.mp4 --stream a/b", 2, "InvalidRecord"),
        ("ask nothing here", 2, "StreamNotFound"),
        ("inspect nothing", 2, "StreamNotFound"),
        ("streams show nothing", 2, "StreamNotFound"),
        ("streams delete nothing --yes", 2, "StreamNotFound"),
        ("streams list --data elsewhere", 1, "StoreUnavailable"),
    ],
)
def test_what_cannot_be_done_says_why_in_one_line(
    line: str,
    code: int,
    kind: str,
    clips: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("no video", encoding="utf-8")
    Path("clip.mp4").symlink_to(clips["cards"])
    VideoMemory.open("cacheflow-data").close()

    assert run([*line.split(), "--json"]) == code
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["type"] == kind
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1


@pytest.mark.parametrize("command", ["ask s what --model random:tiny-qwen2-vl", "streams delete s --yes"])
def test_a_folder_named_by_mistake_is_not_made(command: str, tmp_path: Path, capsys: Capture) -> None:
    assert run([*command.split(), "--data", str(tmp_path / "typo")]) == 1
    assert "holds no store" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_a_picture_that_cannot_be_written_is_an_error(store: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    assert run(["inspect", "shapes", "--data", store, "--out", str(tmp_path / "file" / "x.png")]) == 1
    assert "x.png" in capsys.readouterr().err


def test_an_empty_question_is_a_usage_error(store: str, capsys: Capture) -> None:
    assert run(["ask", "shapes", " ", "--data", store]) == 2


def cacheflow(*args: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cacheflow_ray.cli", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_asking_works_while_another_process_writes(store: str) -> None:
    with VideoMemory.open(store):
        asking = cacheflow("ask", "cards", "Which number?", "--data", store, "--max-new-tokens", "4", "--json")
        out, err = asking.communicate(timeout=120)

    assert asking.returncode == 0, err
    answer = json.loads(out)
    assert answer["evidence"] and answer["session_id"] is None
    assert str(os.getpid()) in err and "conversation is not kept" in err


@pytest.mark.parametrize(("signal_sent", "code", "said"), [(signal.SIGINT, 130, "error: interrupted\n"), (None, 1, "")])
def test_an_answer_cut_short_by_ctrl_c_or_a_reader_that_left_ends_cleanly(
    store: str, signal_sent: signal.Signals | None, code: int, said: str
) -> None:
    asking = cacheflow("ask", "cards", "Which number?", "--data", store, "--max-new-tokens", "3500")
    assert asking.stdout is not None and asking.stderr is not None
    assert asking.stdout.read(1)
    if signal_sent is not None:
        asking.send_signal(signal_sent)
    else:
        asking.stdout.close()

    assert (asking.wait(timeout=60), asking.stderr.read()) == (code, said)


def test_ctrl_c_keeps_what_was_seen_and_the_same_command_goes_on(tmp_path: Path, capsys: Capture) -> None:
    long_clip = tmp_path / "long.mp4"
    frames = [*film(paint_shapes), *film(paint_cards)] * 4
    write_video(long_clip, frames, fps=25)
    line = ("ingest", str(long_clip), "--fps", "all", "--window", "4")

    ingesting = cacheflow(*line, "--data", str(tmp_path / "cut"))
    wait_for_frames(tmp_path / "cut", ingesting)
    ingesting.send_signal(signal.SIGINT)
    out, err = ingesting.communicate(timeout=60)

    assert ingesting.returncode == 130, err
    assert (
        err.splitlines()[-1].startswith("error: interrupted") and "goes on with long" in err and "Traceback" not in err
    )
    assert out == ""
    resumed = asked(capsys, *line, "--data", str(tmp_path / "cut"))["streams"][0]
    whole = asked(capsys, *line, "--data", str(tmp_path / "whole"))["streams"][0]
    assert 0 < resumed["resumed_from_seq"] < len(frames)
    same = ("frames", "tokens_seen", "tokens_kept", "blocks")
    assert [resumed[name] for name in same] == [whole[name] for name in same]


def wait_for_frames(data: Path, process: subprocess.Popen[str]) -> None:
    """Until something of the only stream is durable."""
    while process.poll() is None:
        try:
            with VideoMemory.open(data, read_only=True) as memory:
                if any(info.frames for info in memory.streams()):
                    return
        except StoreError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"ended by itself: {process.communicate()}")
