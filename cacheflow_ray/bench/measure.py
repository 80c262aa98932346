"""Measuring: interleaved rounds, medians, operation counts, and what the machine can do at most."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from cacheflow_ray.bench.results import Ceiling
from memory_store.records import JsonValue

_COPY_BYTES = 128 << 20


def settle(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of every run, `repeats` rounds, forwards and backwards in turn: what else goes on hits all alike.

    Args:
        warm_up: do one round uncounted first.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_idx in range(repeats + warm_up):
        names = list(runs)[:: 1 if round_idx % 2 else -1]
        for name in names:
            settle(device)
            start = perf_counter()
            runs[name]()
            settle(device)
            if round_idx >= warm_up:
                times[name].append(perf_counter() - start)
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Median of each list."""
    return {name: statistics.median(values) for name, values in times.items()}


def count_flops(run: Callable[[], Any]) -> tuple[float, Any]:
    """Floating-point operations (matrix products, convolutions, attention) of a call, and what it returned."""
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={on_cpu: _attention_flops})
    with counter:
        returned = run()
    return float(counter.get_total_flops()), returned


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """The CPU's attention kernel, which torch's counter does not know; arguments are shapes."""
    return int(sdpa_flop_count(query, key, value))


def measure_ceiling(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """A copy of 128 MiB and a 2048-wide matrix product, best of several."""
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    left = torch.randn((1024, 2048), dtype=torch.float32, device=device).to(dtype)
    right = torch.randn((2048, 4096), dtype=torch.float32, device=device).to(dtype)
    runs = {"copy": lambda: target.copy_(source), "product": lambda: left @ right}
    best = {name: min(times) for name, times in interleaved(runs, 7, device).items()}
    return Ceiling(bytes_per_s=2 * _COPY_BYTES / best["copy"], flops_per_s=2 * 1024 * 2048 * 4096 / best["product"])


def memcpy(num_bytes: int) -> Callable[[], None]:
    """A plain copy of so many bytes by one thread, between arrays that are in memory."""
    source, target = np.ones(num_bytes, np.uint8), np.zeros(num_bytes, np.uint8)
    return lambda: np.copyto(target, source)


def describe_machine(device: torch.device) -> dict[str, JsonValue]:
    """Processor, cores, threads, memory and versions."""
    machine: dict[str, JsonValue] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9,
        "load_average": list(os.getloadavg()),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["gpu_memory_gb"] = torch.cuda.get_device_properties(device).total_memory / 1e9
    return machine


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
