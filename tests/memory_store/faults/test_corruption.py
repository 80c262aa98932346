"""A changed byte anywhere in a closed store is noticed, or does not matter; it is never read as data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.memory_store.faults.corruption_trials import DATA, make, outcome, page_kinds, tree_pages
from tests.memory_store.faults.workload import run_batches

_FINE = ("right", "refused", "stale")
_OUTCOMES = ("right", "refused", "stale", "raised", "crash", "hang", "wrong")


def flipped(folder: Path, file: str, count: int, shards: int = 1) -> list[dict[str, Any]]:
    make(folder / "data", shards)
    places = {"folder": folder / "data", "scratch": folder / "flipped", "file": file}
    return run_batches("corruption_trials:try_flips", count, **places, count=count, seed=count)


def table(results: list[dict[str, Any]]) -> str:
    counts = Counter((result["kind"], result["outcome"]) for result in results)
    lines = [f"{'flips in':12}" + "".join(f"{name:>9}" for name in _OUTCOMES)]
    for kind in sorted({result["kind"] for result in results}):
        lines.append(f"{kind:12}" + "".join(f"{counts[kind, name]:>9}" for name in _OUTCOMES))
    told = Counter((result["outcome"], result["error"]) for result in results if result["outcome"] not in _FINE)
    return "\n".join([*lines, *(f"{count:>6} x {name}: {error}" for (name, error), count in told.most_common(20))])


def test_the_untouched_store_reads_right(scratch: Path) -> None:
    make(scratch / "data")
    assert {"leaf", "overflow", "meta"} <= set(page_kinds((scratch / "data" / DATA).read_bytes()))
    assert outcome(scratch / "data", write=True) == {"outcome": "right", "stage": "writing"}


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_a_changed_byte_of_the_data_is_never_read_as_data(scratch: Path, count: int) -> None:
    results = flipped(scratch, DATA, count)
    print(f"corruption: {count} changed bytes of the data file\n{table(results)}")
    assert [result for result in results if result["outcome"] == "wrong"] == []
    assert [result for result in results if result["outcome"] == "raised"] == []


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_changed_byte_of_the_manifest_is_noticed(scratch: Path, count: int) -> None:
    results = flipped(scratch, "manifest.json", count, shards=2)
    print(f"corruption: {count} changed bytes of the manifest\n{table(results)}")
    assert [result for result in results if result["outcome"] not in ("right", "refused")] == []


def test_a_page_of_no_kind_is_noticed(scratch: Path) -> None:
    make(scratch / "data")
    total = 2 * len(tree_pages((scratch / "data" / DATA).read_bytes()))
    places = {"folder": scratch / "data", "scratch": scratch / "changed"}
    results = run_batches("corruption_trials:try_kinds", total, **places)
    print(f"corruption: {total} pages of no kind\n{table(results)}")
    assert [result for result in results if result["outcome"] in ("raised", "wrong")] == []
