"""`cacheflow bench store` runs, and what it calls a ratio is one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cacheflow_ray.bench.store import PARTS, TARGETS, StoreSizes, run_store_bench
from cacheflow_ray.bench.store.library import LibrarySize
from cacheflow_ray.errors import UsageError

SMALL = StoreSizes(
    group=2, groups=2, fetched=4, fetch_repeats=2, searched=300, search_repeats=3, live=20, churn=3,
    library=LibrarySize(num_vectors=4000, num_streams=4, num_clusters=40, num_queries=5, limit=8),
)  # fmt: skip


def test_every_part_measures_what_has_a_target(tmp_path: Path) -> None:
    report = run_store_bench(work=tmp_path, note=lambda text: None, sizes=SMALL)
    assert list(report.parts) == list(PARTS)
    assert set(TARGETS) - {"ann_recall_at_64"} <= set(report.ratios)
    assert all(math.isfinite(value) and value > 0 for value in report.ratios.values())
    assert 1.0 <= report.ratios["churn_amplification"] < 2
    assert json.loads(json.dumps(report.as_json()))["ratios"] == report.ratios
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no part 'speed': known are commit"):
        run_store_bench(only=["speed"], work=tmp_path, note=lambda text: None)
