from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cacheflow_ray.cli.app import run
from cacheflow_ray.cli.clips import render_clips
from cacheflow_ray.cli.demo import QUESTIONS

Capture = pytest.CaptureFixture[str]


def test_the_demo_ends_with_its_summary_and_leaves_two_pictures(tmp_path: Path, capsys: Capture) -> None:
    assert run(["demo", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()

    assert printed.out.splitlines()[-1].startswith("demo: 2 streams, 320 frames, ")
    assert "random weights" in printed.out and "mean nothing yet" in printed.out
    assert all(f"{stream}: {question}" in printed.out for stream, question in QUESTIONS)
    for name in ("timeline.png", "evidence.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"


def test_the_demo_can_be_run_again_and_shows_the_ingest_again(tmp_path: Path, capsys: Capture) -> None:
    first = shown("--out", str(tmp_path), capsys=capsys)
    second = shown("--out", str(tmp_path), capsys=capsys)

    assert [report["already_complete"] for report in second["streams"]] == [False, False]
    assert [answer["evidence"] for answer in first["answers"]] == [answer["evidence"] for answer in second["answers"]]
    assert all(any(item["kind"] == "retrieved" for item in answer["evidence"]) for answer in second["answers"])


def test_the_demo_deletes_nothing_in_a_store_of_the_users(tmp_path: Path, capsys: Capture) -> None:
    clips = render_clips(tmp_path)
    mine = clips["shapes"].rename(tmp_path / "cards.mp4")
    assert run(["ingest", str(mine), "--data", str(tmp_path / "store")]) == 0

    assert run(["demo", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "store")]) != 0
    assert "'cards' holds another source" in capsys.readouterr().err


def test_the_demo_takes_a_video_and_a_question(tmp_path: Path, capsys: Capture) -> None:
    video = render_clips(tmp_path)["cards"].rename(tmp_path / "my clip.mp4")

    told = shown("--video", str(video), "--ask", "Which card?", "--out", str(tmp_path / "out"), capsys=capsys)

    assert [report["stream"] for report in told["streams"]] == ["my-clip"]
    assert [answer["question"] for answer in told["answers"]] == ["Which card?"]


def shown(*args: str, capsys: Capture) -> dict[str, list[dict[str, object]]]:
    capsys.readouterr()
    assert run(["demo", *args, "--json"]) == 0
    told: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out)
    return told
