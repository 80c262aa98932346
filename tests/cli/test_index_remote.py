"""`cacheflow index` at a service: the real gateway, over jobs in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from cacheflow_ray.actors.index_api import NewIndex
from cacheflow_ray.archive.meter import Counts
from cacheflow_ray.archive.records import FileRecord, FileState, JobState, JobTotals, Trouble
from cacheflow_ray.archive.report import IndexReport
from cacheflow_ray.cli.app import run
from cacheflow_ray.config import StreamSettings
from cacheflow_ray.errors import ClusterUnavailable
from cacheflow_ray.service.client import Client
from memory_store.records import Retention
from tests.service.mortal import MortalCluster, served

Capture = pytest.CaptureFixture[str]

TOTALS = JobTotals(
    files={FileState.DONE: 3, FileState.FAILED: 1},
    counts=Counts(frames=40, tokens_seen=400, tokens_kept=90, video_s=12.5),
    busy_s=2.5,
    left=0.0,
    troubles=(Trouble(uri="/v/a.mp4", state=FileState.FAILED, reason="no video"),),
)
FAILED = FileRecord(uri="/v/a.mp4", stream="a", job="shelf", state=FileState.FAILED, reason="no video")


@pytest.fixture
def cluster() -> MortalCluster:
    return MortalCluster()


@pytest.fixture
def server(cluster: MortalCluster) -> Iterator[str]:
    with served(cluster) as address:
        yield address


def told(capsys: Capture, *args: str, code: int = 0) -> Any:
    """The JSON object of a command, which is all there is on stdout."""
    capsys.readouterr()
    ended = run([*args, "--json"])
    printed = capsys.readouterr()
    assert ended == code, printed.err
    return json.loads(printed.out)


def test_a_library_is_indexed_there_and_reported_as_here(server: str, cluster: MortalCluster, capsys: Capture) -> None:
    cluster.index.over = TOTALS
    line = ["videos", "s3://b/c", "--tau", "0.4", "--label", "year=2026", "--summary-only-after", "0"]
    report = told(capsys, "index", *line, "--indexers", "2", "--files-at-once", "3", "--server", server)
    assert report.keys() == {own.name for own in fields(IndexReport)}
    assert (report["files"]["done"], report["frames_per_s"]) == (3, 16.0)
    assert report["troubles"] == [{"uri": "/v/a.mp4", "state": "failed", "reason": "no video"}]
    (new,) = cluster.index.started
    assert (new.sources, new.labels, new.retry_failed) == (("videos", "s3://b/c"), {"year": "2026"}, False)
    assert (new.settings, new.retention) == (StreamSettings(tau=0.4), Retention(summary_only_after_s=0.0))
    assert (new.indexers, new.files_at_once) == (2, 3)


def test_what_failed_is_tried_again(server: str, cluster: MortalCluster, capsys: Capture) -> None:
    assert told(capsys, "index", "retry", "--server", server) == {"job": None, "files": {}}
    cluster.index.over, cluster.index.records[""] = TOTALS, [FAILED]
    assert told(capsys, "index", "retry", "--server", server)["files"]["done"] == 3
    (new,) = cluster.index.started
    assert new.retry_failed and not new.sources


def test_status_and_cancel(server: str, cluster: MortalCluster, capsys: Capture) -> None:
    empty = told(capsys, "index", "status", "--server", server)
    assert (empty["job"], empty["is_running"]) == (None, False)
    assert told(capsys, "index", "cancel", "--server", server, code=2)["error"]["message"] == "no job is under way"
    with Client(server) as client:  # one that goes away
        client.index(NewIndex(sources=("videos",), job_id="shelf"))
    cluster.index.records[""] = [FAILED]
    status = told(capsys, "index", "status", "--server", server)
    assert status["is_running"] and status["job"]["id"] == "shelf"
    assert (status["files"]["failed"], status["troubles"][0]["reason"]) == (1, "no video")
    assert told(capsys, "index", "cancel", "--server", server) == {"job": "shelf", "state": "cancelled"}
    assert cluster.index.jobs_of[""]["shelf"].job.state is JobState.CANCELLED
    assert run(["index", "status", "--server", server]) == 0
    assert "last job operations/shelf (1 source): cancelled for 8 s" in capsys.readouterr().out
    view = cluster.index.jobs_of[""]["shelf"]
    lost = replace(view.job, state=JobState.RUNNING, ended_s=None)
    cluster.index.jobs_of[""]["shelf"] = replace(view, job=lost, error=ClusterUnavailable("nobody runs it any more"))
    assert run(["index", "status", "--server", server]) == 0
    assert "(1 source): nobody runs it any more" in capsys.readouterr().out
    assert not told(capsys, "index", "status", "--server", server)["is_running"]


@pytest.mark.parametrize(
    "line", [["--gpus-per-indexer", "1"], ["--ray-address", "auto"], ["--data", "x"], ["--stores", "2"]]
)
def test_what_the_service_has_its_own_ways_of_is_refused(
    line: list[str], server: str, cluster: MortalCluster, capsys: Capture
) -> None:
    told(capsys, "index", "videos", *line, "--server", server, code=2)
    assert not cluster.index.started
