"""One run: measure part after part in a folder of its own, gather the ratios and their targets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter

import torch

from cacheflow_ray.bench.measure import describe_machine
from cacheflow_ray.bench.results import Part, Target, missed_targets
from cacheflow_ray.bench.store.disk import measure_churn, measure_commit, measure_fetch
from cacheflow_ray.bench.store.library import measure_library
from cacheflow_ray.bench.store.search import measure_search
from cacheflow_ray.bench.store.sizes import StoreSizes
from cacheflow_ray.errors import UsageError
from memory_store.records import JsonValue

PARTS = ("commit", "fetch", "search", "churn", "library")

TARGETS = {
    "commit_over_raw": Target(sign=">=", bound=0.75),
    "commit_over_raw_large": Target(sign=">=", bound=0.75),
    "warm_fetch_over_copy": Target(sign=">=", bound=0.8),
    "warm_fetch_over_copy_one_thread": Target(sign=">=", bound=0.45),
    "cold_fetch_over_read": Target(sign=">=", bound=0.8),
    "search_p50_ms": Target(sign="<=", bound=2.0),
    "search_over_scan": Target(sign="<=", bound=1.5),
    "churn_amplification": Target(sign="<=", bound=1.1),
    "ann_over_flat_speed": Target(sign=">=", bound=10.0),
    "ann_recall_at_64": Target(sign=">=", bound=0.98),
    "ann_open_s": Target(sign="<=", bound=5.0),
    "ann_rebuild_s": Target(sign="<=", bound=90.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """Everything one run measured; `machine`: what on, `seconds`: of the whole run."""

    machine: Mapping[str, JsonValue]
    parts: Mapping[str, Part]
    seconds: float

    title = "memory store"
    targets = TARGETS

    @property
    def ratios(self) -> dict[str, float]:
        return {name: value for part in self.parts.values() for name, value in part.ratios.items()}

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "machine": dict(self.machine),
            "ratios": dict(self.ratios),
            "targets": {name: str(target) for name, target in TARGETS.items() if name in self.ratios},
            "missed": missed_targets(self.ratios, TARGETS),
            "details": {name: dict(part.details) for name, part in self.parts.items()},
            "seconds": self.seconds,
        }


def run_store_bench(
    *, only: Sequence[str] = (), work: Path | None = None, note: Callable[[str], None], sizes: StoreSizes | None = None
) -> StoreReport:
    """Measure the parts named (all, when none is) in a folder that is deleted afterwards.

    Raises:
        UsageError: an unknown part.
    """
    unknown = set(only) - set(PARTS)
    if unknown:
        raise UsageError(f"no part {sorted(unknown)[0]!r}: known are {', '.join(PARTS)}")
    sizes, started = sizes or StoreSizes(), perf_counter()
    folder = Path(mkdtemp(prefix="cacheflow-bench-", dir=work))
    measures: dict[str, Callable[[], Part]] = {
        "commit": lambda: measure_commit(folder, sizes, note),
        "fetch": lambda: measure_fetch(folder, sizes, note),
        "search": lambda: measure_search(folder, sizes, note),
        "churn": lambda: measure_churn(folder, sizes, note),
        "library": lambda: measure_library(folder, note, sizes.library),
    }
    try:
        parts = {name: measure() for name, measure in measures.items() if not only or name in only}
    finally:
        shutil.rmtree(folder)
    machine = describe_machine(torch.device("cpu"))
    return StoreReport(machine=machine, parts=parts, seconds=perf_counter() - started)
