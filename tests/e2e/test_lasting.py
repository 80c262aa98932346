"""Minutes of a service whose processes are killed, and whose nodes go away: each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def told_by(module: str, *options: str) -> dict[str, Any]:
    """The JSON object a script of this folder prints last."""
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.e2e.{module}", *options], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    told: dict[str, Any] = json.loads([line for line in ran.stdout.splitlines() if line.startswith("{")][-1])
    print(f"{module}: {json.dumps(told, indent=2)}")
    return told


@pytest.mark.timeout(1800)
def test_clients_finish_whatever_is_killed_and_nothing_is_lost_or_doubled() -> None:
    told = told_by("chaos", "--seconds", "180", "--streams", "16")
    assert told["complete"]
    assert told["frames"] == told["frames_sent"]
    assert told["streams_that_differ"] == 0
    assert told["largest_kv_difference"] <= 1e-5
    assert told["questions"]["answered"] > 0
    assert set(told["killed"]) == {"encoder", "answerer", "store", "gateway", "director"}


@pytest.mark.timeout(1800)
def test_an_archive_killed_again_and_again_ends_as_if_nobody_had_disturbed_it() -> None:
    told = told_by("index_kills", "--files", "300", "--kills", "10")
    assert told["files"] == told["undisturbed"]["files"]
    assert (told["finished_work_repeated"], told["streams_differing"]) == (0, 0)
    assert told["kv_difference"] <= 1e-5
    assert any(moment["running"] for moment in told["kills"])


@pytest.mark.timeout(900)
def test_nodes_go_away_and_come_back() -> None:
    told = told_by("nodes")
    assert told["frames_after_an_encoders_node_went"] == [48]
    assert told["while_a_stores_node_was_away"] == {"0": 48, "1": "ClusterUnavailable"}
    assert told["pushed_meanwhile"] == 48
    assert told["pushed_after"] == 4
    assert len(set(told["kept"].values())) == 1
