"""A library of files through Ray Data, interrupted and killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from cacheflow_ray.actors.archiving import IndexCall, run_index
from cacheflow_ray.archive.books import Books
from cacheflow_ray.archive.finding import find
from cacheflow_ray.archive.indexing import Wanted
from cacheflow_ray.archive.records import FileRecord, FileState, JobState
from cacheflow_ray.archive.report import IndexProgress
from cacheflow_ray.config import IndexOptions
from cacheflow_ray.engine import IngestJob, VideoMemory
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.models import load_model
from memory_store import Store
from memory_store.testing import MemoryStore
from tests.actors.running import FLOAT32, MODEL, Running
from tests.archive.library import doubles, write_library
from tests.oracles import settings, stored

WANTED = Wanted(settings=settings(), options=IndexOptions(files_at_once=4, cpus_per_indexer=0.0))
COUNT = 30


class EnoughDone(Exception):
    """Stops a run."""


def interrupt(now: IndexProgress) -> None:
    if now.states[FileState.DONE] >= 5:
        raise EnoughDone


def killer() -> Callable[[IndexProgress], None]:
    """Kills the indexer once, with files on their way."""
    victims: list[int] = []

    def look(now: IndexProgress) -> None:
        if now.counts.frames and not victims:
            workers = [own for own in psutil.process_iter(["name", "cmdline"]) if "Indexer" in "".join(own.cmdline())]
            assert len(workers) == 1
            victims.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

    return look


def check_states(files: Mapping[Path, FileState], records: Mapping[str, FileRecord]) -> None:
    pairs = doubles(files)
    assert pairs
    twice = {path for pair in pairs for path in pair}
    for path, state in files.items():
        if path not in twice:
            assert records[str(path)].state is state, records[str(path)]
    for pair in pairs:
        assert {records[str(path)].state for path in pair} == {FileState.DONE, FileState.SKIPPED}


@pytest.mark.timeout(600)
def test_every_file_ends_as_it_should_and_no_finished_work_is_repeated(live: Running, tmp_path: Path) -> None:
    files = write_library(tmp_path / "library", COUNT)
    call = IndexCall(sources=[str(tmp_path)], found=find([str(tmp_path / "library")]), wanted=WANTED)
    with pytest.raises(EnoughDone):
        run_index(live.setup, call, interrupt)
    with Store.open(live.options.data, read_only=True) as store:
        books = Books(store.ledger)
        before = {record.uri: record for record in books.files() if record.state is FileState.DONE}
        assert len(before) >= 5 and books.jobs()[0].state is JobState.CANCELLED

    again = replace(call, job_id="again")
    report = run_index(live.setup, again, killer())
    with Store.open(live.options.data, read_only=True) as store:
        records = {record.uri: record for record in Books(store.ledger).files()}
        check_states(files, records)
        for uri, record in before.items():
            assert replace(records[uri], job=record.job) == record
        assert sum(report.files.values()) == COUNT and report.files["running"] == report.files["pending"] == 0
        assert report.already_done == len(before) and report.counts.frames > 0

        model = load_model(MODEL, FLOAT32)
        done = [record for record in records.values() if record.state is FileState.DONE]
        for record in done[::5]:
            with VideoMemory(MemoryStore(), model) as plain:
                plain.ingest_many([IngestJob(source=record.uri, stream="plain", settings=settings())])
                tokens, kv = stored(Backend(model=model, store=plain.store), "plain")
            found_tokens, found_kv = stored(Backend(model=model, store=store), record.stream)
            assert np.array_equal(found_tokens, tokens)
            np.testing.assert_allclose(found_kv, kv, atol=1e-5)

    nothing = run_index(live.setup, replace(call, job_id="nothing"), lambda _: None)
    assert (nothing.counts.frames, nothing.files) == (0, report.files)
    assert nothing.already_done == len(done)
