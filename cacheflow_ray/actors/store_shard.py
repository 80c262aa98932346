"""The actor that keeps one data folder: its only writer, and its reader for those on other nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from cacheflow_ray.actors.process import resident_bytes
from cacheflow_ray.actors.setup import StorePlace
from cacheflow_ray.actors.store_metrics import store_metrics
from cacheflow_ray.config import StoreOptions
from memory_store import Durability, Store, StoreLocked
from memory_store.records import Array, LibraryHit, Retention

#: What others may have it do, as `memory_store.Store` does it.
CALLS = frozenset({
    "create_stream", "get_stream", "list_streams", "delete_stream", "relabel", "claim", "load_state", "commit", "stats",
    "times", "blocks_in", "read_tokens", "read_thumbnails", "without_kv", "search", "put_turns", "get_turns",
})  # fmt: skip
NOTES = frozenset({"put", "claim", "get", "entries"})
_LOCK_WAIT_S = 10.0


class StoreShard:
    """A `Store` for other processes; calls come in several threads at once.

    Raises:
        as `Store.open`; StoreLocked: the process before it has not gone for 10 s.
    """

    def __init__(self, place: StorePlace, options: StoreOptions) -> None:
        self._place = place
        self._store = _open(place, options)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """`Store.name(...)`."""
        if name not in CALLS:
            raise ValueError(f"a store has no call {name!r}")
        return getattr(self._store, name)(*args, **kwargs)

    def search_library(self, queries: Array, **options: Any) -> list[list[LibraryHit]]:
        """`Store.library.search(...)`."""
        return self._store.library.search(queries, **options)

    def note(self, name: str, *args: Any) -> Any:
        """`Store.ledger.name(...)`."""
        if name not in NOTES:
            raise ValueError(f"a ledger has no call {name!r}")
        return getattr(self._store.ledger, name)(*args)

    def read_blocks(self, stream_id: str, block_idxs: Sequence[int], fingerprint: str) -> tuple[list[Array], Array]:
        """Tokens of each block, and the KV of all: [2, L, H, K*B, D] of the KV dtype."""
        with self._store.reader(stream_id, block_idxs, fingerprint=fingerprint) as reader:
            num_layers, _, num_heads, _, head_dim = reader.shape
            total = sum(len(tokens) for tokens in reader.tokens)
            out = np.empty((2, num_layers, num_heads, total, head_dim), reader.dtype)
            reader.read(range(num_layers), out[0], out[1])
            return list(reader.tokens), out

    def get_retention(self, stream_id: str) -> Retention | None:
        return self._store.upkeep.get_retention(stream_id)

    def set_retention(self, stream_id: str, policy: Retention) -> None:
        self._store.upkeep.set_retention(stream_id, policy)

    def node(self) -> str:
        """Where the folder is."""
        return str(ray.get_runtime_context().get_node_id())

    def close(self) -> None:
        """Give the folder up, with its derived data saved."""
        self._store.close()

    def status(self) -> tuple[int, int, str, str]:
        """Process, resident bytes, node, and metrics as Prometheus text."""
        text = store_metrics(self._store.upkeep.stats(), self._store.hot_stats())
        return os.getpid(), resident_bytes(), self.node(), text


def _open(place: StorePlace, options: StoreOptions) -> Store:
    """A process that was killed holds its lock until the system has cleared it away."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            return Store.open(
                place.folder,
                shards=options.shards,
                durability=Durability(options.durability),
                hot_bytes=options.hot_bytes,
            )
        except StoreLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
