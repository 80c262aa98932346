"""`cacheflow eval needle`: one table, or one object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cacheflow_ray.cli.app import run


def test_rows_as_json_and_as_a_table(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["eval", "needle", "--model", str(checkpoint), "--frames", "48", "--seeds", "3", "--methods", "blind,ours"]
    assert run([*asked, "--tau", "0.9", "--window", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["method"] for row in rows] == ["blind", "ours"]
    assert rows[0]["tokens_attended"] == 0 < rows[1]["tokens_attended"]
    assert {row["frames"] for row in rows} == {48} and rows[0]["n"] == rows[1]["n"] > 3

    assert run([*asked, "--tau", "0.9", "--window", "2"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["frames", "K", "method"]
    assert [line.split()[2] for line in lines] == ["blind", "ours"]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--frames", "many", "frames"), ("--top-k", "0", "top-k"), ("--methods", "magic", "magic")],
)
def test_what_makes_no_sense_is_refused(
    checkpoint: Path, option: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", "needle", "--model", str(checkpoint), option, value]) == 2
    assert told in capsys.readouterr().err


def test_the_plot_is_a_picture(checkpoint: Path, tmp_path: Path) -> None:
    asked = ["eval", "needle", "--checkpoint", str(checkpoint), "--frames", "32,48", "--seeds", "3"]
    picture = tmp_path / "needle.png"
    assert run([*asked, "--methods", "blind,sliding-window", "--plot", str(picture)]) == 0
    with Image.open(picture) as opened:
        assert opened.format == "PNG" and opened.width > 800
