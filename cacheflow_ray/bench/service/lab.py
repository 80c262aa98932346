"""What the parts share: clusters under test, one per model, and a process that plays the clients."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from cacheflow_ray.actors import topology
from cacheflow_ray.actors.api import LiveStream
from cacheflow_ray.actors.topology import ClusterOptions
from cacheflow_ray.bench.service.sizes import ServiceSizes
from cacheflow_ray.config import EncoderOptions, ModelOptions, ServiceOptions, TopologyOptions
from cacheflow_ray.service.client import Client
from cacheflow_ray.service.gateway import Gateway

P = ParamSpec("P")
T = TypeVar("T")

#: Toy dimensions, where a call's overhead is most of its time.
TINY = "random:tiny-llava-onevision"

#: How models run, in the actors and in this process.
MODEL_OPTIONS = ModelOptions(device="cpu")

_WAIT_S = 120.0
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One encoder, one answerer, one store, and a gateway before them that listens at `address`."""

    address: str

    def client(self) -> Client:
        return Client(self.address)

    def resident_mb(self) -> dict[str, float]:
        """Memory of the gateway's process and of the encoder's, without pages shared with other processes."""
        with self.client() as client:
            actors = client.status().actors
        return {own.role: _own_bytes(own.pid) / 1e6 for own in actors if own.role in ("gateway", "encoder")}

    def wait_until_pushed(self, names: Sequence[str]) -> None:
        """Until all these streams are open, with frames of each durable. Raises TimeoutError."""
        self._wait(lambda live: all(name in live and live[name].position.frames for name in names))

    def wait_until_idle(self, names: Sequence[str]) -> None:
        """Until none of these streams is open: what was pushed of them is encoded. Raises TimeoutError."""
        self._wait(lambda live: live.keys().isdisjoint(names))

    def _wait(self, come: Callable[[Mapping[str, LiveStream]], bool]) -> None:
        deadline = time.monotonic() + _WAIT_S
        with self.client() as client:
            while not come({own.stream_id: own for own in client.status().streams}):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the encoder is not as far within {_WAIT_S:g} s")
                time.sleep(0.1)


class Lab:
    """A context manager. Ray is started where this process has none, and left running.

    Args:
        folder: for stores.
        model: of the parts that are not about toy dimensions.
        threads: that torch computes with, in each process; None: as many as the service would.
        running: clusters there are already, by model.
        note: shows one line of progress.
    """

    def __init__(
        self,
        folder: Path,
        sizes: ServiceSizes,
        *,
        model: str,
        threads: int | None,
        running: Mapping[str, Cluster],
        note: Callable[[str], None],
    ) -> None:
        self.folder, self.sizes, self.model, self.note = folder, sizes, model, note
        self.threads = threads or ClusterOptions(data=folder).setup().encoder_options.torch_threads or 1
        self._clusters = dict(running)
        self._ending = ExitStack()
        self._processes = self._ending.enter_context(ProcessPoolExecutor(1, get_context("spawn")))

    @property
    def encoder_options(self) -> EncoderOptions:
        """Of the encoders, and of the engine beside them."""
        return EncoderOptions(torch_threads=self.threads)

    def cluster(self, model: str) -> Cluster:
        """Of a model; started when it is first asked for."""
        if model not in self._clusters:
            self.note(f"starting a cluster of {model}")
            options = self._options(model, f"cluster-{len(self._clusters)}")
            topology.connect(None, options.topology.namespace)
            running = topology.start(options)
            self._ending.callback(running.stop)
            port = running.serve(partial(Gateway, options=ServiceOptions(port=0)))
            self._ending.callback(running.drain, _GRACE_S)
            self._clusters[model] = Cluster(address=f"127.0.0.1:{port}")
        return self._clusters[model]

    def empty_cluster(self) -> ClusterOptions:
        """Of one with no actors yet; Ray is there."""
        options = self._options(self.model, "empty")
        topology.connect(None, options.topology.namespace)
        return options

    def elsewhere(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a module's function in the clients' process, one call after the other."""
        return self._processes.submit(call, *args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.close()

    def _options(self, model: str, name: str) -> ClusterOptions:
        return ClusterOptions(
            data=self.folder / name,
            model=model,
            model_options=MODEL_OPTIONS,
            encoder=self.encoder_options,
            topology=TopologyOptions(namespace=f"bench-{os.getpid()}-{name}"),
        )


def _own_bytes(pid: int) -> int:
    """Resident memory of a process of this machine that no other shares: Ray's object store is in none of it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])
