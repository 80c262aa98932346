"""Making actors, each by name: one that is there already is taken as it is."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cacheflow_ray.actors.answerer import Answerer
from cacheflow_ray.actors.encoder import Encoder
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.actors.store_shard import StoreShard
from cacheflow_ray.config import TopologyOptions

_ASYNC_CALLS = 4096
_STORE_THREADS = 16


def spawn(kind: type, name: str, namespace: str, *args: Any, **options: Any) -> Any:
    """An actor that outlives whoever made it, and is restarted whenever it dies."""
    how = {"num_cpus": 0, "max_concurrency": _ASYNC_CALLS} | options
    remote: Any = ray.remote(kind)
    return remote.options(
        name=name, namespace=namespace, lifetime="detached", get_if_exists=True, max_restarts=-1, **how
    ).remote(*args)


def is_there(name: str, namespace: str) -> bool:
    """Alive, or about to be again."""
    try:
        ray.get_actor(name, namespace)
    except ValueError:
        return False
    return True


def spawn_encoder(setup: Setup, topology: TopologyOptions, number: int) -> Any:
    needs = {"num_cpus": topology.cpus_per_encoder, "num_gpus": topology.gpus_per_encoder}
    return spawn(Encoder, encoder_name(number), setup.namespace, setup, **needs, **bound_to(topology, "encoder"))


def spawn_answerer(setup: Setup, topology: TopologyOptions, number: int) -> Any:
    needs = {"num_cpus": topology.cpus_per_answerer, "num_gpus": topology.gpus_per_answerer}
    return spawn(Answerer, answerer_name(number), setup.namespace, setup, **needs, **bound_to(topology, "answerer"))


def bound_to(topology: TopologyOptions, role: str) -> dict[str, Any]:
    """What keeps an actor on the nodes of its role, where a label tells them."""
    return {} if topology.role_label is None else {"label_selector": {topology.role_label: role}}


def spawn_store(setup: Setup, topology: TopologyOptions, number: int, node_id: str) -> Any:
    """Bound to the node that has its disk: by label where there is one, else to `node_id`."""
    place = setup.stores[number]
    bound: dict[str, Any]
    if topology.store_label is None:
        bound = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}
    else:
        bound = {"label_selector": {topology.store_label: str(number)}}
    return spawn(
        StoreShard, place.name, setup.namespace, place, setup.store_options, max_concurrency=_STORE_THREADS, **bound
    )


def encoder_name(number: int) -> str:
    return f"encoder-{number}"


def answerer_name(number: int) -> str:
    return f"answerer-{number}"
