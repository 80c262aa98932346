"""The actor that hosts what serves clients, in an event loop of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Protocol

import ray

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.actors.cluster import Cluster
from cacheflow_ray.actors.process import resident_bytes
from cacheflow_ray.actors.setup import Setup

_LOG = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_WORN = 75


class Server(Protocol):
    """What can be hosted."""

    async def start(self) -> int:
        """Serve; returns the port."""

    async def drain(self, grace_s: float | None = None) -> None:
        """Take nothing new, finish what is under way for so long (None: as it sees fit), and stop."""

    def is_worn(self) -> bool:
        """Whether it should be made anew by a fresh process."""


class Host:
    """Makes the server when it starts, and anew whenever it is restarted: when its process dies, or the server is worn.

    Args:
        make: the server, from the cluster it serves; picklable.
    """

    def __init__(self, setup: Setup, make: Callable[[ClusterPort], Server]) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="serve", daemon=True).start()
        self._server = make(Cluster(setup))
        self._port: int = asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(60)
        asyncio.run_coroutine_threadsafe(self._renew_worn(), self._loop)

    def port(self) -> int:
        """Where it serves."""
        return self._port

    def drain(self, grace_s: float) -> None:
        asyncio.run_coroutine_threadsafe(self._server.drain(grace_s), self._loop).result(grace_s + 30)

    async def _renew_worn(self) -> None:
        while not self._server.is_worn():
            await asyncio.sleep(_LOOK_EVERY_S)
        _LOG.info("the server is worn: it drains, and a fresh process takes over")
        await self._server.drain()
        os._exit(_WORN)  # Ray restarts an actor that did not end of its own will

    def status(self) -> tuple[int, int, str, str]:
        """Process, resident bytes and node; its metrics it serves itself."""
        return os.getpid(), resident_bytes(), ray.get_runtime_context().get_node_id(), ""
