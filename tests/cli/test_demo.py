from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cacheflow_ray.cli.app import run
from cacheflow_ray.cli.cameras import film_cameras, make_asked, make_cameras

Capture = pytest.CaptureFixture[str]


def test_the_demo_answers_shows_the_truth_and_leaves_two_pictures(tmp_path: Path, capsys: Capture) -> None:
    assert run(["demo", "--out", str(tmp_path), "--seconds", "75"]) == 0
    printed = capsys.readouterr()

    assert printed.out.splitlines()[-1].startswith("demo: 2 streams, 150 frames, ")
    assert "random weights" not in printed.out
    asked = make_asked(make_cameras(75))
    assert len(asked) == 10
    for question in asked:
        assert f"{question.stream}: {question.text}" in printed.out
    for name in ("timeline.png", "evidence.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"


@pytest.mark.slow
def test_the_demo_can_be_run_again_and_shows_the_ingest_again(tmp_path: Path, capsys: Capture) -> None:
    first = shown("--out", str(tmp_path), "--seconds", "120", capsys=capsys)
    second = shown("--out", str(tmp_path), "--seconds", "120", capsys=capsys)

    assert [report["already_complete"] for report in second["streams"]] == [False, False]
    assert [answer["evidence"] for answer in first["answers"]] == [answer["evidence"] for answer in second["answers"]]
    assert all(any(item["kind"] == "retrieved" for item in answer["evidence"]) for answer in second["answers"])


def test_the_questions_are_of_every_kind_with_their_truth() -> None:
    asked = make_asked(make_cameras())
    assert len(asked) == 10
    assert sum(question.follows for question in asked) == 1
    assert sum(question.time_range is not None for question in asked) == 2  # the follow-up stays within its range
    assert [question.truth for question in asked if not question.shown] == ["no"]  # about a thing never shown
    assert {question.stream for question in asked} == {"camera-1", "camera-2"}


def test_random_weights_are_named(tmp_path: Path, capsys: Capture) -> None:
    model = "random:tiny-llava-onevision"
    assert run(["demo", "--out", str(tmp_path), "--seconds", "60", "--model", model]) == 0
    assert "random weights" in capsys.readouterr().out


def test_the_demo_deletes_nothing_in_a_store_of_the_users(tmp_path: Path, capsys: Capture) -> None:
    mine = filmed(tmp_path).rename(tmp_path / "camera-2.mp4")
    assert run(["ingest", str(mine), "--data", str(tmp_path / "store")]) == 0

    again = ["demo", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "store"), "--seconds", "60"]
    assert run(again) != 0
    assert "'camera-2' holds another source" in capsys.readouterr().err


def test_the_demo_takes_a_video_and_a_question(tmp_path: Path, capsys: Capture) -> None:
    video = filmed(tmp_path).rename(tmp_path / "my clip.mp4")

    told = shown("--video", str(video), "--ask", "which card", "--out", str(tmp_path / "out"), capsys=capsys)

    assert [report["stream"] for report in told["streams"]] == ["my-clip"]
    assert [(answer["question"], answer["truth"]) for answer in told["answers"]] == [("which card", None)]


def filmed(folder: Path) -> Path:
    """A minute of the first camera."""
    cameras = dict(list(make_cameras(60).items())[:1])
    (path,) = film_cameras(cameras, folder, lambda what: lambda done, total: None).values()
    return path


def shown(*args: str, capsys: Capture) -> dict[str, list[dict[str, Any]]]:
    capsys.readouterr()
    assert run(["demo", *args, "--json"]) == 0
    told: dict[str, list[dict[str, Any]]] = json.loads(capsys.readouterr().out)
    return told
