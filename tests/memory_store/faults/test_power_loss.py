"""What is left of a store after a power cut: at every instant, with any of the unsynced writes lost."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memory_store import Durability
from tests.memory_store.faults.power import PAGE, Disk, is_commit
from tests.memory_store.faults.recorder import Barrier, Event, Write
from tests.memory_store.faults.workload import run_batches, start_python

QUICK = {"cuts": 40, "per_cut": 3}
SLOW = {"cuts": 300, "per_cut": 5}
LESS = {"cuts": 15, "per_cut": 3}


def recorded(folder: Path, durability: Durability, steps: int, shards: int = 1) -> list[Event]:
    """Events of a child's work on `folder / "data"`, also kept in `folder / "events"`."""
    arguments = {"folder": folder / "data", "events": folder / "events", "steps": steps, "seed": 0}
    child = start_python("power_trials:record", durability=durability, shards=shards, **arguments)
    child.communicate()
    assert child.returncode == 0
    return pickle.loads((folder / "events").read_bytes())


def tried(
    folder: Path, scratch: Path, durability: Durability, size: dict[str, int], *, marker: bool = True
) -> list[dict[str, Any]]:
    """Results of opening what power cuts may leave of what `folder` has the events of, as that durability promises."""
    files = {"scratch": scratch / "cut", "events": folder / "events"}
    total = size["cuts"] * size["per_cut"]
    return run_batches("power_trials:try_images", total, **files, **size, durability=durability, marker=marker, seed=1)


def summary(name: str, results: list[dict[str, Any]]) -> str:
    outcomes = Counter(result["outcome"] for result in results)
    cuts = len({result["cut"] for result in results if "cut" in result})
    acked, lost = (sum(result.get(key, 0) for result in results) for key in ("acked", "lost"))
    refused, unborn, crashes = (outcomes[name] for name in ("refused", "unborn", "crash"))
    return (
        f"power loss, {name}: {cuts} cuts, {len(results)} images, {acked} acknowledged blocks, {lost} lost, "
        f"{refused} refused, {unborn} not yet made, {crashes} crashes, {outcomes['wrong'] + outcomes['broken']} broken"
    )


def failed(results: list[dict[str, Any]], *fine: str) -> list[dict[str, Any]]:
    """Some that ended otherwise. A folder whose making was cut off may be refused: nothing was ever acknowledged."""
    fine = (*fine, "unborn")
    return [result for result in results if result["outcome"] not in fine][:5]


@pytest.mark.parametrize("durability", Durability)
def test_the_recorder_sees_every_write(tmp_path: Path, durability: Durability) -> None:
    events = recorded(tmp_path, durability, steps=15)
    path = tmp_path / "data" / "shard-0000" / "data.mdb"
    assert {event.file for event in events if isinstance(event, Write)} == {str(path)}
    disk = Disk(unit=PAGE)
    for event in events:
        disk.apply(event)
    assert disk.after_cut(lambda _, count: count, whole_size=False) == path.read_bytes()
    commits = sum(map(is_commit, events))
    barriers = sum(isinstance(event, Barrier) and event.end for event in events)
    durable = sum(isinstance(event, Write) and event.durable for event in events)
    print(f"recorded, {durability}: {len(events)} events, {commits} commits, {barriers} barriers, {durable} durable")
    assert (durable >= commits - 1) == (durability is Durability.POWER_SAFE)
    assert (barriers >= commits) == (durability is not Durability.RELAXED)


def sized(quick: dict[str, int], *mode: object) -> list[Any]:
    """A quick case and a slow one."""
    slow = [pytest.mark.slow, pytest.mark.timeout(3600)]
    return [pytest.param(*mode, quick, id="-".join([*map(str, mode), "quick"])),
            pytest.param(*mode, SLOW, id="-".join([*map(str, mode), "slow"]), marks=slow)]  # fmt: skip


@pytest.mark.parametrize(
    ("durability", "shards", "size"),
    [
        *sized(QUICK, Durability.POWER_SAFE, 1),
        *sized(LESS, Durability.POWER_SAFE, 2),
        *sized(QUICK, Durability.PROCESS_SAFE, 1),
    ],
)
def test_a_power_cut_costs_no_more_than_was_promised(
    tmp_path: Path, scratch: Path, durability: Durability, shards: int, size: dict[str, int]
) -> None:
    recorded(tmp_path, durability, steps=60 if size is SLOW else 25, shards=shards)
    results = tried(tmp_path, scratch, durability, size)
    print(summary(f"{durability}, {shards} shard(s)", results))
    assert failed(results, "kept") == []
    if durability is Durability.POWER_SAFE:
        assert sum(result["lost"] for result in results) == 0


@pytest.mark.parametrize("size", sized(LESS))
def test_a_relaxed_store_is_refused_after_a_power_cut_unless_it_was_closed(
    tmp_path: Path, scratch: Path, size: dict[str, int]
) -> None:
    recorded(tmp_path, Durability.RELAXED, steps=60 if size is SLOW else 25)
    results = tried(tmp_path, scratch, Durability.RELAXED, size)
    print(summary(Durability.RELAXED, results))
    assert failed(results, "kept", "refused") == []
    assert {result["outcome"] for result in results[-size["per_cut"] :]} == {"kept"}  # closed
    assert "refused" in {result["outcome"] for result in results}


@pytest.mark.parametrize("size", sized(LESS))
def test_what_a_repair_keeps_of_a_relaxed_store_is_exact(tmp_path: Path, scratch: Path, size: dict[str, int]) -> None:
    recorded(tmp_path, Durability.RELAXED, steps=60 if size is SLOW else 25)
    files = {"scratch": scratch / "cut", "events": tmp_path / "events"}
    results = run_batches("power_trials:try_repairs", size["cuts"] * size["per_cut"], **size, **files, seed=2)
    outcomes = Counter(result["outcome"] for result in results)
    exact, gone = (sum(result.get(key, 0) for result in results) for key in ("exact", "gone"))
    print(f"power loss, relaxed, repaired: {len(results)} images, {dict(outcomes)}, {exact} blocks exact, {gone} gone")
    assert failed(results, "kept", "refused", "crash") == []
    assert outcomes["kept"] > 0


def test_without_syncs_or_the_marker_a_power_cut_would_show(tmp_path: Path, scratch: Path) -> None:
    """So that the tests above can fail: what a relaxed store leaves does not keep the promises of power_safe."""
    recorded(tmp_path, Durability.RELAXED, steps=25)
    results = tried(tmp_path, scratch, Durability.POWER_SAFE, LESS, marker=False)
    print(summary("relaxed, taken for power_safe", results))
    assert len(failed(results, "kept")) > 0
