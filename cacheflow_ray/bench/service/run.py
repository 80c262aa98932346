"""One run: measure part after part on clusters of its own, gather the ratios and their targets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter

import torch

from cacheflow_ray.bench.measure import describe_machine
from cacheflow_ray.bench.results import Part, RatioReport, Target
from cacheflow_ray.bench.service.fairness import measure_fairness
from cacheflow_ray.bench.service.gateway import measure_gateway
from cacheflow_ray.bench.service.ingest import measure_batch, measure_ingest
from cacheflow_ray.bench.service.lab import Cluster, Lab
from cacheflow_ray.bench.service.questions import measure_asking, measure_busy
from cacheflow_ray.bench.service.sizes import QUICK, ServiceSizes
from cacheflow_ray.config import DEFAULT_MODEL
from cacheflow_ray.errors import UsageError

#: The parts by name, in the order they run.
PARTS: dict[str, Callable[[Lab], Part]] = {
    "ingest": measure_ingest,
    "busy": measure_busy,
    "gateway": measure_gateway,
    "batch": measure_batch,
    "fairness": measure_fairness,
    "ask": measure_asking,
}

TARGETS = {
    "service_over_engine": Target(sign=">=", bound=0.8),
    "gateway_over_echo": Target(sign=">=", bound=0.5),
    "fairness_max_over_min": Target(sign="<=", bound=1.5),
    "batch16_over_1": Target(sign=">=", bound=2.5),
    "ttft_busy_over_idle": Target(sign="<=", bound=3.0),
    "ask_overhead_ms": Target(sign="<=", bound=10.0),
    "asked8_over_1": Target(sign=">=", bound=1.0),
}


def run_service_bench(
    *,
    model: str = DEFAULT_MODEL,
    only: Sequence[str] = (),
    work: Path | None = None,
    threads: int | None = None,
    sizes: ServiceSizes = QUICK,
    running: Mapping[str, Cluster] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> RatioReport:
    """Measure the parts named (all, when none is) on the CPU.

    Ray is started where this process has none, and runs on until the process ends.

    Args:
        work: a folder to make stores in, on the disk that is to be measured; None takes the system's.
        threads: that torch computes with, in each process; None: as many as the service would.
        running: clusters there are already, by model; others are started.
        note: shows one line of progress.

    Raises:
        UsageError: an unknown part.
    """
    unknown = sorted(set(only) - PARTS.keys())
    if unknown:
        raise UsageError(f"no part {unknown[0]!r} to measure: use {', '.join(PARTS)}")
    started = perf_counter()
    folder = Path(mkdtemp(prefix="cacheflow-bench-", dir=work))
    try:
        with Lab(folder, sizes, model=model, threads=threads, running=running or {}, note=note) as lab:
            threads = lab.threads
            parts = {name: measure(lab) for name, measure in PARTS.items() if not only or name in only}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    machine = describe_machine(torch.device("cpu")) | {"torch_threads": threads}
    seconds = perf_counter() - started
    return RatioReport(kind="service", model=model, machine=machine, parts=parts, targets=TARGETS, seconds=seconds)
