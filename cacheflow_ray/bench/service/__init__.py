"""What the service adds to the engine: as ratios within one run, on this machine, real processes throughout.

lab           the clusters under test, the process that pushes to them, a folder
pushing       streams of the synthetic world through the client, in a process of its own
ingest        the service beside the engine; many streams beside one
gateway       the gateway alone beside a bare stream of gRPC (on bare, sink)
fairness      many streams at once
questions     answers while much is ingested, and what it costs to ask from afar
run           the parts in order, and what they come to (on sizes)
"""

from cacheflow_ray.bench.service.run import PARTS, TARGETS, ServiceReport, run_service_bench
from cacheflow_ray.bench.service.sizes import FULL, QUICK, ServiceSizes

__all__ = ["FULL", "PARTS", "QUICK", "TARGETS", "ServiceReport", "ServiceSizes", "run_service_bench"]
