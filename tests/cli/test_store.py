"""`cacheflow store` and `cacheflow streams retain` on a real store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray.cli.app import run
from tests.cli.clips import render_clips

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a stream 'shapes'."""
    folder = tmp_path_factory.mktemp("made")
    clip = render_clips(folder)["shapes"]
    options = [
        "--fps",
        "8",
        "--window",
        "1",
        "--block-size",
        "16",
        "--tau",
        "0.95",
        "--model",
        "random:tiny-llava-onevision",
    ]
    assert run(["ingest", str(clip), "--stream", "shapes", "--data", str(folder / "data"), *options]) == 0
    return folder / "data"


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture
def told(capsys: Capture) -> Callable[..., tuple[int, Any]]:
    def call(*args: object) -> tuple[int, Any]:
        capsys.readouterr()
        code = run([*map(str, args), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


Told = Callable[..., tuple[int, Any]]


def damage(data: Path) -> None:
    """Flip a bit in the KV of the first block."""
    path = data / "shard-0000" / "data.mdb"
    content = bytearray(path.read_bytes())
    content[content.index(b"CFRBLOCK") + 3000] ^= 1
    path.write_bytes(content)


def test_a_whole_store_verifies(data: Path, told: Told) -> None:
    code, report = told("store", "verify", "--data", data)
    assert code == 0
    assert (report["verdict"], report["streams"], report["findings"]) == ("whole", 1, [])
    assert report["blocks"] > 2


def test_damage_is_named_then_mended(data: Path, told: Told, capsys: Capture) -> None:
    damage(data)
    code, report = told("store", "verify", "--data", data)
    assert code == 1
    assert [(own["stream_id"], own["what"], own["mended"]) for own in report["findings"]] == [("shapes", "kv", "")]
    assert run(["store", "verify", "--repair", "--data", str(data)]) == 0
    assert "only the summary is kept: re-encode needed" in capsys.readouterr().out
    assert told("store", "verify", "--data", data)[1]["verdict"] == "whole"


def test_a_snapshot_restores_to_the_same_totals(data: Path, tmp_path: Path, told: Told) -> None:
    before = told("store", "stats", "--data", data)[1]
    assert told("store", "snapshot", tmp_path / "copy", "--data", data)[0] == 0
    assert told("store", "restore", tmp_path / "copy", "--data", tmp_path / "back")[0] == 0
    after = told("store", "stats", "--data", tmp_path / "back")[1]
    for name in ("streams", "blocks", "tokens", "live_bytes"):
        assert after[name] == before[name]
    code, error = told("store", "restore", tmp_path / "copy", "--data", tmp_path / "back")
    assert code == 2
    assert "not empty" in error["error"]["message"]


def test_limits_hold_and_an_answer_says_what_it_left_out(data: Path, told: Told) -> None:
    blocks = told("streams", "show", "shapes", "--data", data)[1]["blocks"]
    assert told("streams", "retain", "shapes", "--data", data)[1]["retention"]["max_blocks"] is None
    kept = told("streams", "retain", "shapes", "--data", data, "--max-blocks", blocks - 1)[1]
    assert kept["retention"]["max_blocks"] == blocks - 1
    assert told("streams", "show", "shapes", "--data", data)[1]["blocks"] == blocks - 1
    told("streams", "retain", "shapes", "--data", data, "--summary-only-after", "0s")
    question = ["ask", "shapes", "what is there", "--data", data, "--max-new-tokens", "1", "--window", "1"]
    answer = told(*question, "--no-reencode")[1]
    assert any("re-encode needed, but re-encoding is switched off" in warning for warning in answer["warnings"])
    assert answer["reencoded"] is None
    answer = told(*question, "--reencode-blocks", 2, "--warm-up", 1, "--reencode-seconds", 60)[1]
    again = answer["reencoded"]
    assert (len(again["block_idxs"]), again["warm_up_blocks"]) == (2, 1)
    assert Path(again["source"]).name == "shapes.mp4"
    assert any("re-encoded from" in warning for warning in answer["warnings"])
    assert any("a question re-encodes 2 blocks at most" in warning for warning in answer["warnings"])
    assert told("inspect", "shapes", "--data", data, "--out", data / "x.png")[0] == 0
    assert told("streams", "retain", "shapes", "--data", data, "--keep-all")[1]["retention"]["max_blocks"] is None


def test_an_archive_keeps_summaries_and_answers_from_its_file(made: Path, tmp_path: Path, told: Told) -> None:
    clip, data = made.parent / "shapes.mp4", tmp_path / "archive"
    options = ["--fps", "8", "--window", "1", "--block-size", "16", "--tau", "0.95"]
    model = ["--model", "random:tiny-llava-onevision", "--data", data]
    assert told("ingest", clip, *options, *model, "--summary-only-after", "0")[0] == 0
    told_of = told("streams", "show", "shapes", "--data", data)[1]
    assert told_of["settings"]["read_from"] == str(clip)
    assert (
        told("store", "stats", "--data", data)[1]["live_bytes"]
        < told("store", "stats", "--data", made)[1]["live_bytes"] / 2
    )
    question = ["shapes", "what is there", "--max-new-tokens", "4", "--warm-up", "999"]
    found = told("ask", *question, "--data", data)[1]
    wanted = told("ask", *question, "--data", made)[1]
    assert (found["text"], found["evidence"]) == (wanted["text"], wanted["evidence"])
    assert found["reencoded"]["exact_idxs"] == found["reencoded"]["block_idxs"] != []
    code, error = told("ingest", clip, "--summary-only-after", "0", "--server", "127.0.0.1:1")
    assert (code, error["error"]["type"]) == (2, "UsageError")


def test_shards_and_durability_are_chosen_when_a_store_is_made(made: Path, tmp_path: Path, told: Told) -> None:
    clip, data = made.parent / "shapes.mp4", tmp_path / "new"
    options = ["--fps", "1", "--model", "random:tiny-llava-onevision", "--data", data]
    code, _ = told("ingest", clip, *options, "--shards", 3, "--durability", "process_safe")
    assert code == 0
    assert told("store", "stats", "--data", data)[1]["shards"] == 3
    code, error = told("ingest", clip, *options, "--shards", 2)
    assert (code, error["error"]["type"]) == (2, "InvalidRecord")
    code, error = told("ingest", clip, *options, "--durability", "hopeful")
    assert (code, error["error"]["type"]) == (2, "InvalidConfig")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ttl", "soon"], "--ttl: 'soon' is not a duration"),
        (["--max-bytes", "lots"], "--max-bytes: 'lots' is not a size"),
        (["--pin", "1:00"], "--pin: '1:00' is not a range"),
        (["--keep-all", "--ttl", "1d"], "leave the others out"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(data: Path, told: Told, options: list[str], message: str) -> None:
    code, error = told("streams", "retain", "shapes", "--data", data, *options)
    assert code == 2
    assert message in error["error"]["message"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("12h", 43200), ("30d", 2592000), ("2w", 1209600)]
)
def test_durations(text: str, seconds: float) -> None:
    from cacheflow_ray.cli.options import parse_duration

    assert parse_duration(text, "--ttl") == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("500MB", 500_000_000), ("1.5GiB", 3 << 29), ("2 TB", 2 * 10**12)]
)
def test_sizes(text: str, size: int) -> None:
    from cacheflow_ray.cli.options import parse_size

    assert parse_size(text, "--max-bytes") == size
