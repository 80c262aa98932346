"""How fast the engine is, as ratios inside one run, each beside the bytes and operations that must happen."""

from cacheflow_ray.bench.engine import PARTS, run_engine_bench
from cacheflow_ray.bench.results import Report
from cacheflow_ray.bench.sizes import PRESETS

__all__ = ["PARTS", "PRESETS", "Report", "run_engine_bench"]
