"""How fast the engine and the store are, as ratios inside one run, beside the bytes and operations that must happen."""

from cacheflow_ray.bench.engine import PARTS, run_engine_bench
from cacheflow_ray.bench.results import Report
from cacheflow_ray.bench.sizes import PRESETS
from cacheflow_ray.bench.store import StoreReport, run_store_bench

__all__ = ["PARTS", "PRESETS", "Report", "StoreReport", "run_engine_bench", "run_store_bench"]
