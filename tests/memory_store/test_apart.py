"""Verification in a process of its own tells what it found, or how LMDB ended it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from memory_store import Store, StoreUnavailable, apart, verify_apart
from tests.memory_store.conformance import fill


def killed(path: str, repair: bool, sending: object) -> None:
    os.kill(os.getpid(), signal.SIGABRT)


def test_the_report_and_the_progress_come_back(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 70)
    told: list[tuple[int, int, int]] = []
    report = verify_apart(tmp_path, progress=lambda *now: told.append(now))
    assert (report.streams, report.blocks, report.findings) == (1, 70, ())
    assert [now[0] for now in told] == [64, 70]
    assert multiprocessing.active_children() == []


def test_a_store_that_cannot_be_opened_is_told_as_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="holds no store"):
        verify_apart(tmp_path / "none")


def test_the_end_of_the_process_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 1)
    monkeypatch.setattr(apart, "_verify", killed)
    report = verify_apart(tmp_path)
    assert not report.whole
    assert [(finding.what, "SIGABRT" in finding.problem) for finding in report.findings] == [("database", True)]
