"""A stream "cam" that grows, and damage to what is stored of it, for the tests of upkeep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from memory_store import Store, StreamRecord
from memory_store.blobs import Snapshot
from memory_store.catalog import get_entry
from tests.memory_store.conformance import make_block, make_commit, make_record


def windowed(window: int) -> StreamRecord:
    return make_record(settings={"window_blocks": window})


def append(store: Store, first: int, stop: int, **changes: Any) -> None:
    """Commit blocks first..stop-1 of "cam", one by one."""
    for at in range(first, stop):
        store.commit([make_commit(make_block(at, **changes), num_blocks=at + 1)])


def live(store: Store) -> list[int]:
    return np.flatnonzero(np.isfinite(store.times("cam")[:, 0])).tolist()


def put(store: Store, table: str, change: Callable[[bytes], bytes | None], block_idx: int | None = None) -> None:
    """Change a stored value of "cam" behind the store's back; None: remove it."""

    def apply(snapshot: Snapshot) -> None:
        entry = get_entry(snapshot, "cam")
        key = entry.key if block_idx is None else entry.block_key(block_idx)
        key = b"head" + key if table == "meta" else key
        value = change(bytes(snapshot.get(table, key) or b""))
        snapshot.delete(table, key)
        if value is not None:
            snapshot.put(table, key, value)

    store._shard("cam").writer.write(apply)


def flipped(value: bytes) -> bytes:
    return value[:-3] + bytes([value[-3] ^ 4]) + value[-2:]


def removed(value: bytes) -> None:
    return None
