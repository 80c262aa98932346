"""How fast the memory store is, beside what the disk and the memory do with the same bytes in the same run.

disk        commit, fetch and churn: blocks to the disk and back, and the room they take
search      the vectors of one stream; a whole library's are in `bench.store.library`
run         the parts in order, and what they come to (on sizes, synthetic)
"""

from cacheflow_ray.bench.store.run import PARTS, TARGETS, StoreReport, run_store_bench
from cacheflow_ray.bench.store.sizes import StoreSizes

__all__ = ["PARTS", "TARGETS", "StoreReport", "StoreSizes", "run_store_bench"]
