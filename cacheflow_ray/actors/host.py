"""The actor that hosts what serves clients, in an event loop of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Protocol

import ray

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.actors.cluster import Cluster
from cacheflow_ray.actors.process import resident_bytes
from cacheflow_ray.actors.setup import Setup


class Server(Protocol):
    """What can be hosted."""

    async def start(self) -> int:
        """Serve; returns the port."""

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, finish what is under way for so long, and stop."""


class Host:
    """Makes the server when it starts, and anew whenever it is restarted.

    Args:
        make: the server, from the cluster it serves; picklable.
    """

    def __init__(self, setup: Setup, make: Callable[[ClusterPort], Server]) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="serve", daemon=True).start()
        self._server = make(Cluster(setup))
        self._port: int = asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(60)

    def port(self) -> int:
        """Where it serves."""
        return self._port

    def drain(self, grace_s: float) -> None:
        asyncio.run_coroutine_threadsafe(self._server.drain(grace_s), self._loop).result(grace_s + 30)

    def status(self) -> tuple[int, int, str, str]:
        """Process, resident bytes and node; its metrics it serves itself."""
        return os.getpid(), resident_bytes(), ray.get_runtime_context().get_node_id(), ""
