"""`cacheflow eval index` and `cacheflow eval dropping`: every table, as one object and for people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cacheflow_ray.cli.app import run
from cacheflow_ray.media import write_video

Capture = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_the_index_study_answers_each_of_its_questions(checkpoint: Path, capsys: Capture) -> None:
    asked = ["eval", "index", "--model", str(checkpoint), "--frames", "256", "--streams", "2", "--block-size", "4"]
    assert run([*asked, "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert [table["question"] for table in tables] == ["summaries", "layers", "queries", "merges", "stops"]
    for table in tables:
        assert (table["frames"], table["block_size"]) == (256, 4)
        for row in table["rows"]:
            recall = list(row["recall"].values())
            assert row["n"] > 5 and 0 <= recall[0] <= recall[-1] <= 1

    assert run([*asked, "--summary", "segments4"]) == 0
    told = capsys.readouterr().out
    assert "layers: 256 frames, blocks of 4" in told and "segments4, mean query, layers 0+1, rrf" in told


@pytest.mark.slow
def test_the_drop_study_shows_world_drift_and_clips(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    rng = np.random.default_rng(0)
    moving = (rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(6))
    write_video(tmp_path / "noise.mp4", moving, fps=1)
    asked = ["eval", "dropping", "--model", str(checkpoint), "--frames", "32", "--questions", "1", "--tau", "0.3,0.9"]
    assert run([*asked, "--clips", str(tmp_path), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert len(tables["world"]) == 2 * 3 + 3 and len(tables["drift"]) == 2 * 3
    assert {row["clip"] for row in tables["clips"]} == {"noise.mp4"}
    plain = {
        (row["settings"]["reference"], row["settings"]["tau"]): row
        for row in tables["drift"]
        if not row["settings"]["adaptive"]
    }
    for reference in ("previous", "last_kept"):
        assert plain[reference, 0.3]["keep_rate"] <= plain[reference, 0.9]["keep_rate"]
    assert plain["last_kept", 0.9]["mean_likeness"] >= 0.9  # what memory holds is never further off than tau
    assert run(["eval", "dropping", "--model", str(checkpoint), "--tau", "low"]) == 2
    assert "tau" in capsys.readouterr().err


def test_the_reencode_study_comes_nearer_with_every_block_of_warm_up(checkpoint: Path, capsys: Capture) -> None:
    asked = ["eval", "reencode", "--model", str(checkpoint), "--frames", "64", "--blocks", "3", "--questions", "1"]
    asked += ["--tau", "0.9", "--window", "4"]
    assert run([*asked, "--warm-up", "0,1,4", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["compared"] == 3 and report["questions"] > 0 and report["machine"]["cpu"]
    none, one, enough = report["rows"]
    assert [row["warm_up"] for row in report["rows"]] == [0, 1, 4]
    for row in report["rows"]:
        assert len(row["key_error"]) == len(row["value_error"]) == 2
        assert row["key_error"][0] < 1e-5 and row["worst_error"] >= max(row["key_error"] + row["value_error"])
    assert none["worst_error"] > one["worst_error"] > 1e-3 > 1e-5 > enough["worst_error"]
    assert enough["exact"] == 3 and enough["right"] == report["kept_right"]
    assert run([*asked, "--warm-up", "500"]) == 2
    assert "make it longer with --frames" in capsys.readouterr().err
