"""What the service adds to the engine: as ratios within one run, real processes throughout.

run           the parts in order, and what they come to (on sizes)
lab           the clusters under test, and a process that plays the clients
pushing       streams of the synthetic world through the client; runs in that process
ingest        the service beside the engine (on engine); many streams beside one
gateway       the gateway alone beside a bare stream of gRPC (on bare, sink)
fairness      many streams at once
questions     answers while much is ingested, and what it costs to ask from afar

Nothing is imported here: see `cacheflow_ray.bench`.
"""
