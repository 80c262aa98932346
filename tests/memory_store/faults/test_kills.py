"""Processes that die: writers, readers that hold old snapshots, and children of a fork."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from memory_store import Commit, Durability, Store, StoreLocked, StoreUnavailable, StreamState
from tests.memory_store.faults.children import STREAMS
from tests.memory_store.faults.workload import Held, change, check_stream, commit_of, record_of, start_python

ONE = Held(generation=0, num_blocks=1)


def kill(child: subprocess.Popen[str]) -> str:
    """What it had printed, but for the first line that was read before."""
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read()  # not `communicate`: it would pass by what reading a line has buffered
    child.communicate()
    return rest


def marks_until_killed(folder: Path, durability: Durability, seed: int, delay_s: float) -> list[tuple[str, str, Held]]:
    child = start_python("children:write_on", folder=folder, durability=durability, seed=seed)
    first = child.stdout.readline()
    time.sleep(delay_s)
    lines = (first + kill(child)).splitlines(keepends=True)
    marks = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be cut short
    return [(what, name, to and Held(generation=to[0], num_blocks=to[1])) for what, name, to in marks]


def allowed(marks: list[tuple[str, str, Held]], name: str, before: Held | None) -> list[Held | None]:
    """What may be found of a stream: the last acknowledged, or what was begun after it."""
    states = [before]
    for what, stream_id, held in marks:
        if stream_id == name:
            states = [held] if what == "acked" else [*states, held]
    return states


@pytest.mark.parametrize("kills", [4, pytest.param(67, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("durability", Durability)
def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path, durability: Durability, kills: int) -> None:
    rng, acked = random.Random(kills), 0
    for seed in range(kills):
        folder = tmp_path / str(seed // 8)  # a new one now and then: every check reads all there is
        if seed % 8 == 0:
            held = dict.fromkeys(STREAMS)
        marks = marks_until_killed(folder, durability, seed, rng.uniform(0, 0.3))
        acked += sum(what == "acked" for what, _, _ in marks)
        with Store.open(folder, durability=durability) as store:
            found = {name: check_stream(store, name) for name in STREAMS}
        for name in STREAMS:
            assert found[name] in allowed(marks, name, held[name])
        held = found
    print(f"kills, {durability}: {kills} writers killed, {acked} acknowledged changes, 0 lost")
    assert acked > kills


def test_a_shard_that_a_killed_relaxed_writer_left_is_safe_once_a_power_safe_one_wrote_it(tmp_path: Path) -> None:
    marks_until_killed(tmp_path, Durability.RELAXED, seed=0, delay_s=0.1)
    with Store.open(tmp_path, durability=Durability.POWER_SAFE) as store:
        held = {name: check_stream(store, name) for name in STREAMS}
        store.create_stream(record_of("late-small", 0))
    for marker in tmp_path.glob("shard-*/unsynced"):
        marker.write_text("another boot\n")
    with Store.open(tmp_path) as store:
        assert {name: check_stream(store, name) for name in STREAMS} == held


def churn(store: Store, times: int) -> None:
    """Replace a large value again and again: a file whose free pages are used again does not grow by it."""
    for at in range(times):
        state = StreamState(epoch=1, num_blocks=0, payload=bytes([at]) * 300_000)
        store.commit([Commit(stream_id="churn", state=state)])


def test_killed_readers_do_not_keep_the_file_growing(tmp_path: Path) -> None:
    data = tmp_path / "shard-0000" / "data.mdb"
    with Store.open(tmp_path) as store:
        change(store, "a-large", None, Held(generation=0, num_blocks=0))
        store.commit([commit_of("a-large", 0, range(1))])
        store.create_stream(record_of("churn", 0))
        churn(store, 5)
        calm = data.stat().st_size
        readers = [start_python("children:hold_a_reader", folder=tmp_path) for _ in range(3)]
        assert {reader.stdout.readline() for reader in readers} == {"holding\n"}
        churn(store, 5)
        held = data.stat().st_size
        for reader in readers:
            kill(reader)
        churn(store, 40)
        print(
            f"readers killed: 3; file {calm >> 10} KiB, {held >> 10} KiB while held, {data.stat().st_size >> 10} after"
        )
        assert held > calm
        assert data.stat().st_size < held + calm
        assert check_stream(store, "a-large") == ONE


def test_a_second_writer_is_refused_with_the_pid_of_the_first_until_that_is_dead(tmp_path: Path) -> None:
    writer = start_python("children:append", folder=tmp_path)
    writer.stdout.readline()
    with pytest.raises(StoreLocked, match=f"process {writer.pid}") as caught:
        Store.open(tmp_path)
    assert caught.value.ids["pid"] == writer.pid
    acked = int([*[writer.stdout.readline() for _ in range(3)], *kill(writer).splitlines()][-1])
    with Store.open(tmp_path) as store:
        assert check_stream(store, "a-large").num_blocks in (acked, acked + 1)
    print(f"second writer refused by pid; after the kill all {acked} acknowledged blocks are there")


@pytest.mark.parametrize("durability", Durability)
def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path, durability: Durability) -> None:
    with Store.open(tmp_path, durability=durability) as store:
        store.create_stream(record_of("a-small", 0))
        store.commit([commit_of("a-small", 0, range(1))])
        child = os.fork()
        if not child:
            os._exit(_refused_everything(store))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        store.commit([commit_of("a-small", 0, range(1, 2))])
        assert check_stream(store, "a-small") == Held(generation=0, num_blocks=2)
    with Store.open(tmp_path) as store:
        assert check_stream(store, "a-small") == Held(generation=0, num_blocks=2)


def _refused_everything(store: Store) -> int:
    """How many of three uses of a store inherited through a fork are refused as such."""
    refused = 0
    for use in (
        lambda: store.stats("a-small"),
        lambda: store.commit([commit_of("a-small", 0, range(1, 2))]),
        lambda: store.reader("a-small", [0], fingerprint="model-a"),
    ):
        try:
            use()
        except StoreUnavailable as error:
            refused += "fork" in str(error)
        except BaseException:
            return 100
    return refused
