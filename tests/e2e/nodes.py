"""A cluster of several nodes of which some go away; run by a test.

    python -m tests.e2e.nodes

Nodes of `ray.cluster_utils.Cluster` on this machine: a head with the gateway's part and store 0, one with store 1, and
two with a GPU each (in name) for the encoders. One encoder's node goes while streams are pushed; then store 1's node
goes and comes back. Prints one JSON object of what was seen.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster as Nodes

from cacheflow_ray.actors import topology
from cacheflow_ray.actors.api import PayloadKind
from cacheflow_ray.actors.cluster import Cluster
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.actors.topology import ClusterOptions
from cacheflow_ray.config import EncoderOptions, TopologyOptions
from cacheflow_ray.engine.position import Overload
from cacheflow_ray.errors import ClusterUnavailable
from tests.actors.running import FLOAT32, MODEL, push_all, raw, wanted
from tests.oracles import moving_frames

FRAMES = moving_frames(48)
_LABEL = "cacheflow-store"


def main() -> None:
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 4, "labels": {_LABEL: "0"}})
    keeper = nodes.add_node(num_cpus=2, labels={_LABEL: "1"})
    workers = {node.node_id: node for node in (nodes.add_node(num_cpus=2, num_gpus=1) for _ in range(2))}
    nodes.wait_for_nodes()
    with tempfile.TemporaryDirectory() as folder:
        options = ClusterOptions(
            data=Path(folder) / "data",
            model=MODEL,
            model_options=FLOAT32,
            encoder=EncoderOptions(torch_threads=1, commit_interval_s=0.1),
            topology=TopologyOptions(encoders=2, answerers=1, stores=2, gpus_per_encoder=1.0, store_label=_LABEL),
            ray_address=nodes.address,
        )
        started = topology.start(options)
        setup = replace(options.setup(), patience_s=20.0)
        told = asyncio.run(_see(setup, nodes, keeper, workers))
        started.stop()
        topology.disconnect()
    nodes.shutdown()
    print(json.dumps(told))


async def _see(setup: Setup, nodes: Nodes, keeper: Any, workers: dict[str, Any]) -> dict[str, Any]:
    cluster, namespace = Cluster(setup), setup.namespace
    names = [f"stream-{at}" for at in range(8)]
    of_store = {at: [name for name in names if cluster._store.place_of(name) == at] for at in (0, 1)}
    told: dict[str, Any] = {"streams": {at: len(own) for at, own in of_store.items()}}

    pushing = [asyncio.create_task(push_all(cluster, name, FRAMES, size=2)) for name in names]
    await asyncio.sleep(1.0)
    gone = ray.get(ray.get_actor("encoder-0", namespace).status.remote())[2]
    await asyncio.to_thread(nodes.remove_node, workers[gone], allow_graceful=False)
    done = await asyncio.gather(*pushing)
    told["frames_after_an_encoders_node_went"] = sorted({own.frames for own in done})

    await asyncio.to_thread(nodes.remove_node, keeper, allow_graceful=False)
    hasty = Cluster(replace(setup, patience_s=1.0))
    started = time.monotonic()
    while await _reached(hasty, of_store[1][0]) == 48:  # its process notices within seconds that its node has gone
        assert time.monotonic() - started < 120
    told["while_a_stores_node_was_away"] = {at: await _reached(hasty, own[0]) for at, own in of_store.items()}
    told["pushed_meanwhile"] = (await push_all(cluster, _another(cluster, 0), FRAMES)).frames
    back = nodes.add_node(num_cpus=2, labels={_LABEL: "1"})
    assert back
    started = time.monotonic()
    while await _reached(cluster, of_store[1][0]) != 48:
        assert time.monotonic() - started < 120
    told["back_within_s"] = time.monotonic() - started
    session = await cluster.open_ingest(wanted(_another(cluster, 1)), PayloadKind.RGB, Overload.BLOCK)
    told["pushed_after"] = (await session.push(raw(FRAMES[:4]))).frames
    await session.close()
    told["kept"] = {name: (await cluster.get_stream(name)).info.blocks for name in names}
    return told


def _another(cluster: Cluster, store: int) -> str:
    """A name whose stream is kept there."""
    return next(name for at in range(100) if cluster._store.place_of(name := f"another-{at}") == store)


async def _reached(cluster: Cluster, name: str) -> int | str:
    """Frames of a stream, or that it cannot be reached."""
    try:
        return (await cluster.get_stream(name)).position.frames
    except ClusterUnavailable as error:
        return type(error).__name__


if __name__ == "__main__":
    main()
