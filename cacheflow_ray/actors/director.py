"""The actor that knows who runs, and which encoder has which stream; nothing of what it knows is lost with it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import Counter
from typing import Any

import ray

from cacheflow_ray.actors.errors import asked
from cacheflow_ray.actors.process import resident_bytes
from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.actors.spawning import answerer_name, encoder_name, spawn_answerer, spawn_encoder
from cacheflow_ray.config import TopologyOptions
from cacheflow_ray.engine.about import about
from cacheflow_ray.engine.catalog import SOURCE_URI
from cacheflow_ray.errors import ClusterUnavailable
from memory_store.errors import StoreError

_LOG = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_ANSWER_WITHIN_S = 5.0
_DRAIN_S = 60.0


class Director:
    """Makes encoders and answerers, watches them, and gives streams to encoders.

    A stream stays with its encoder while that answers. Whoever is given a stream gets a new epoch for it, so that the
    store refuses what an earlier owner still writes.
    """

    def __init__(self, setup: Setup, topology: TopologyOptions) -> None:
        self._setup, self._topology = setup, topology
        self._store = RemoteStore(setup)
        self._encoders = {encoder_name(at): spawn_encoder(setup, topology, at) for at in range(topology.encoders)}
        self._answerers = {answerer_name(at): spawn_answerer(setup, topology, at) for at in range(topology.answerers)}
        self._load: dict[str, int] = {}  # streams open at encoders that answered lately
        self._owners: dict[str, str] = {}
        self._complete: set[str] = set()
        self._lock = threading.Lock()
        self._watching = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._watching.start()

    async def names(self) -> tuple[list[str], list[str], list[str]]:
        """Of encoders, answerers and stores."""
        with self._lock:
            return list(self._encoders), list(self._answerers), [place.name for place in self._setup.stores]

    async def encoder_for(self, stream_id: str) -> str:
        """Who has the stream, or is to have it: of those that answer, the one with the fewest streams.

        Raises:
            ClusterUnavailable: none answers.
        """
        return self._encoder_for(stream_id)

    async def lost(self, encoder: str) -> None:
        """It was found not to answer: its streams go to others, until it does."""
        with self._lock:
            self._load.pop(encoder, None)

    async def release(self, stream_id: str) -> None:
        """Nobody pushes the stream any more: it may go elsewhere next time."""
        with self._lock:
            self._owners.pop(stream_id, None)

    async def scale(self, encoders: int | None, answerers: int | None) -> tuple[int, int]:
        """Make more, or drain the last and let them go; returns how many there are."""
        going: list[Any] = []
        with self._lock:
            for at in range(len(self._encoders), encoders or 0):
                self._encoders[encoder_name(at)] = spawn_encoder(self._setup, self._topology, at)
            for at in range(len(self._answerers), answerers or 0):
                self._answerers[answerer_name(at)] = spawn_answerer(self._setup, self._topology, at)
            for at in range(encoders or len(self._encoders), len(self._encoders)):
                going.append(self._encoders.pop(encoder_name(at)))
                self._load.pop(encoder_name(at), None)
            leaving = range(answerers or len(self._answerers), len(self._answerers))
            idle = [self._answerers.pop(answerer_name(at)) for at in leaving]
            counts = len(self._encoders), len(self._answerers)
        await asyncio.gather(*[_drained(actor) for actor in going])
        for actor in idle:
            ray.kill(actor)
        return counts

    async def status(self) -> tuple[int, int, str, str]:
        """Process, resident bytes and node; it has no metrics."""
        return os.getpid(), resident_bytes(), ray.get_runtime_context().get_node_id(), ""

    async def stop(self) -> None:
        """Drain every encoder, and let all go."""
        with self._lock:
            encoders, answerers = list(self._encoders.values()), list(self._answerers.values())
            self._encoders, self._answerers, self._load = {}, {}, {}
        await asyncio.gather(*[_drained(actor) for actor in encoders])
        for actor in answerers:
            ray.kill(actor)

    def _encoder_for(self, stream_id: str) -> str:
        with self._lock:
            owner = self._owners.get(stream_id)
            if owner not in self._load:
                if not self._load:
                    raise ClusterUnavailable("no encoder answers: try again in a moment")
                owner = min(self._load, key=lambda name: (self._load[name], name))
                self._owners[stream_id] = owner
                self._load[owner] += 1
            return owner

    async def claim(self, stream_id: str) -> int:
        """A new epoch of the stream. Raises: StreamNotFound, ClusterUnavailable."""
        return await asyncio.to_thread(self._store.claim, stream_id)

    def _watch(self) -> None:
        while True:
            started = time.monotonic()
            try:
                self._look()
                self._pull()
            except Exception:  # the next round comes all the same
                _LOG.warning("looking after the cluster failed", exc_info=True)
            time.sleep(max(0.1, _LOOK_EVERY_S - (time.monotonic() - started)))

    def _look(self) -> None:
        """See which encoders answer, and how many streams each has."""
        with self._lock:
            encoders = dict(self._encoders)
        asked_of = {name: actor.status.remote() for name, actor in encoders.items()}
        ray.wait(list(asked_of.values()), num_returns=len(asked_of), timeout=_ANSWER_WITHIN_S)
        load: dict[str, int] = {}
        for name, reference in asked_of.items():
            try:
                load[name] = len(ray.get(reference, timeout=0)[-1])
            except Exception:
                _LOG.info("%s does not answer", name)
        with self._lock:
            given = Counter(self._owners.values())
            self._load = {name: max(count, given[name]) for name, count in load.items() if name in self._encoders}

    def _pull(self) -> None:
        """See that every stream with a source of its own is being read, for as long as it is not complete."""
        wanted = {
            record.stream_id: str(record.settings[SOURCE_URI])
            for record in self._store.list_streams()
            if SOURCE_URI in record.settings and record.stream_id not in self._complete
        }
        if not wanted:
            return
        running: set[str] = set()
        for name, actor in list(self._encoders.items()):
            try:
                running |= set(ray.get(actor.pulled.remote(), timeout=_ANSWER_WITHIN_S))
            except Exception:
                _LOG.info("%s does not answer", name)
        for stream_id, uri in wanted.items():
            if stream_id not in running:
                self._start_pulling(stream_id, uri)

    def _start_pulling(self, stream_id: str, uri: str) -> None:
        try:
            if about(self._store.load_state(stream_id)).complete:
                self._complete.add(stream_id)
                return
            name = self._encoder_for(stream_id)
            epoch = self._store.claim(stream_id)
            ray.get(self._encoders[name].pull.remote(stream_id, epoch, uri), timeout=_ANSWER_WITHIN_S)
        except (StoreError, ClusterUnavailable) as error:
            _LOG.info("stream %s is not read yet: %s", stream_id, error)


async def _drained(actor: Any) -> None:
    """Let an encoder finish, then go."""
    try:
        await asked(actor.drain.remote(_DRAIN_S / 2), "encoder", _DRAIN_S)
    except ClusterUnavailable:
        _LOG.warning("an encoder could not be drained", exc_info=True)
    ray.kill(actor)
