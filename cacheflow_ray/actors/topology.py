"""All actors from one configuration, in one place: `start`, and the `Topology` it gives back."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.actors.director import Director
from cacheflow_ray.actors.errors import got
from cacheflow_ray.actors.host import Host, Server
from cacheflow_ray.actors.index_jobs import let_jobs_go
from cacheflow_ray.actors.setup import DIRECTOR, GATEWAY, Setup, StorePlace
from cacheflow_ray.actors.spawning import bound_to, is_there, spawn, spawn_store
from cacheflow_ray.config import DEFAULT_MODEL, EncoderOptions, ModelOptions, StoreOptions, TopologyOptions
from cacheflow_ray.errors import ClusterUnavailable

_LOG = logging.getLogger(__name__)
_DIAL_S = 10.0

#: Of a Ray of our own. A batch of frames goes with the call that pushes it, which is faster than through the object
#: store; and actors are what the machine is there for, not what it does beside other work.
_SYSTEM = {"max_direct_call_object_size": 1 << 20, "task_rpc_inlined_bytes_limit": 8 << 20, "worker_niceness": 0}
_START_S = 300.0
_STOP_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What to start, and where.

    Args:
        data: folder of the store on its node; with several stores, of their folders.
        ray_address: of a running Ray cluster; None: a Ray of this machine's own, which ends with this process.
        source_root: files below it may be read as sources; None: only addresses.
    """

    data: Path
    model: str = DEFAULT_MODEL
    model_options: ModelOptions = field(default_factory=ModelOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    topology: TopologyOptions = field(default_factory=TopologyOptions)
    ray_address: str | None = None
    source_root: Path | None = None

    def setup(self) -> Setup:
        """What every actor is told. Ray would have each compute in one thread; they share a node's cores instead."""
        encoder, topology = self.encoder, self.topology
        if encoder.torch_threads is None:
            threads = max(1, (os.cpu_count() or 1) // (topology.encoders + topology.answerers))
            encoder = encoder.model_copy(update={"torch_threads": threads})
        data, count = self.data.absolute(), self.topology.stores
        folders = [data] if count == 1 else [data / f"store-{number:04d}" for number in range(count)]
        return Setup(
            namespace=self.topology.namespace,
            model=self.model,
            model_options=self.model_options,
            store_options=self.store,
            encoder_options=encoder,
            stores=tuple(StorePlace(name=f"store-{at}", folder=folder) for at, folder in enumerate(folders)),
            topology=self.topology,
            source_root=self.source_root.absolute() if self.source_root else None,
        )


class Topology:
    """A running cluster, from the process that started it (or joined one that ran)."""

    def __init__(self, setup: Setup, options: TopologyOptions | None = None) -> None:
        self._setup, self._options = setup, options or TopologyOptions()

    def serve(self, make: Callable[[ClusterPort], Server], name: str = GATEWAY) -> int:
        """Have an actor host what `make` makes; returns its port. Raises: what making it raised."""
        bound = bound_to(self._options, "gateway")
        host = spawn(Host, name, self._setup.namespace, self._setup, make, max_concurrency=8, **bound)
        return int(got(host.port.remote(), name, _START_S))

    def drain(self, grace_s: float, name: str = GATEWAY) -> None:
        """Have a gateway finish what is under way, and let it go."""
        host = ray.get_actor(name, self._setup.namespace)
        got(host.drain.remote(grace_s), name, grace_s + _STOP_S)
        ray.kill(host)

    def stop(self) -> None:
        """Drain the encoders and let every actor go; all that was acknowledged is in the stores.

        Index jobs are broken off: a job of the same sources goes on where they were.
        """
        let_jobs_go(self._setup.namespace)
        director = ray.get_actor(DIRECTOR, self._setup.namespace)
        got(director.stop.remote(), DIRECTOR, _STOP_S)
        ray.kill(director)
        _stop_stores(self._setup)


def start(options: ClusterOptions) -> Topology:
    """Start (or join) what the options say, and wait until all of it answers.

    Raises:
        what an actor raised as it was made: ModelLoadError, StoreLocked, ...; ClusterUnavailable.
    """
    connect(options.ray_address, options.topology.namespace)
    setup = options.setup()
    _start_stores(setup, options.topology)
    bound = bound_to(options.topology, "gateway")
    director = spawn(Director, DIRECTOR, setup.namespace, setup, options.topology, **bound)
    encoders, answerers, _ = _made(director.names.remote(), DIRECTOR)
    for name in (*encoders, *answerers):
        _made(ray.get_actor(name, setup.namespace).status.remote(), name)
    return Topology(setup, options.topology)


@contextlib.contextmanager
def stores(options: ClusterOptions) -> Iterator[Setup]:
    """The stores alone, for work that has actors of its own; those of a service that runs are taken, and left to it.

    Raises: as `start`.
    """
    connect(options.ray_address, options.topology.namespace)
    setup = options.setup()
    there = is_there(setup.stores[0].name, setup.namespace)
    _start_stores(setup, options.topology)
    try:
        yield setup
    finally:
        if not there:
            _stop_stores(setup)


def _start_stores(setup: Setup, topology: TopologyOptions) -> None:
    here = ray.get_runtime_context().get_node_id()
    started = [spawn_store(setup, topology, at, here) for at in range(topology.stores)]
    for place, store in zip(setup.stores, started, strict=True):
        _made(store.node.remote(), place.name)


def _stop_stores(setup: Setup) -> None:
    for place in setup.stores:
        store = ray.get_actor(place.name, setup.namespace)
        with contextlib.suppress(ClusterUnavailable):
            got(store.close.remote(), place.name, _STOP_S)
        ray.kill(store)


def connect(address: str | None, namespace: str) -> None:
    """Join the Ray cluster at `address`, or start one of this machine's own; once per process.

    Raises:
        ClusterUnavailable: nothing answers there, or Ray does not start.
    """
    if ray.is_initialized():
        return
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "_system_config": _SYSTEM}
    # Without an address Ray would join whatever cluster it finds on this machine.
    where = address or "local"
    if address:
        _dial(address)
    join = partial(
        ray.init, address=where, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR, **local
    )
    try:
        join()
    except Exception as error:  # Ray has no type of its own for a start that takes it more than 30 s
        ray.shutdown()
        if address:
            raise _silent(address, error) from error
        _LOG.warning("Ray did not start, and is started once more: %s", error)
        join()


def _dial(address: str) -> None:
    """Whether anybody listens at a "host:port"; Ray itself would try for twenty minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", for example: Ray knows where that is, or says at once that it does not
    try:
        socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), _DIAL_S).close()
    except (OSError, OverflowError) as error:
        raise _silent(address, error) from error


def _silent(address: str, error: Exception) -> ClusterUnavailable:
    return ClusterUnavailable(f"no Ray cluster answers at {address!r} ({error}): is it running?", address=address)


def disconnect() -> None:
    """Leave Ray; one of this machine's own ends."""
    ray.shutdown()


def _made(reference: Any, name: str) -> Any:
    return got(reference, name, _START_S)
