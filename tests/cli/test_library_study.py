"""`cacheflow eval library`: one table, or one object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cacheflow_ray.cli.app import run


def test_rows_as_json_and_as_a_table(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["eval", "library", "--model", str(checkpoint), "--videos", "4,6", "--frames", "12", "--top-k", "3"]
    assert run([*line, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["videos"], row["frames"], row["top_k"]) for row in rows] == [(4, 12, 3), (6, 12, 3)]
    assert all(0 <= row["recall_1"] <= row["recall_k"] <= 1 and row["same"] == 1.0 and row["n"] for row in rows)
    assert all(row["search"]["p50"] <= row["search"]["p95"] for row in rows)

    assert run(line) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert "recall@3" in head and [own.split()[0] for own in lines] == ["4", "6"]


def test_no_videos_are_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "library", "--model", str(checkpoint), "--videos", "none"]) == 2
    assert "videos: 'none' is not allowed" in capsys.readouterr().err
