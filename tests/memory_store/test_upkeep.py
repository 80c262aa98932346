"""Housekeeping gives back the space of deleted streams; totals of a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

from memory_store import Store
from tests.memory_store.conformance import fill


def test_a_deleted_stream_is_gone_at_once_and_its_space_comes_back_in_the_background(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 30)
        used = store.upkeep.stats().used_bytes
        store.delete_stream("cam")
        assert store.list_streams() == []
        until = time.monotonic() + 10
        while store.upkeep.stats().used_bytes > used / 4 and time.monotonic() < until:
            time.sleep(0.01)
        assert store.upkeep.stats().used_bytes <= used / 4
        assert store.upkeep.verify().findings == ()


def test_what_a_killed_process_left_to_remove_is_removed_by_the_next(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 3)
        store.upkeep.stop()
        store.delete_stream("cam")
    with Store.open(tmp_path) as store:
        fill(store, 2)
        store.upkeep.housekeep()
        assert store.upkeep.verify().findings == ()
        assert store.stats("cam").num_blocks == 2


def test_totals_of_a_folder(tmp_path: Path) -> None:
    with Store.open(tmp_path, shards=2) as store:
        fill(store, 4)
        fill(store, 3, stream_id="other")
        stats = store.upkeep.stats()
        assert (stats.shards, stats.streams, stats.blocks, stats.tokens) == (2, 2, 7, 28)
        assert stats.live_bytes == sum(store.stats(name).num_bytes for name in ("cam", "other"))
        on_disk = sum(os.path.getsize(tmp_path / f"shard-{number:04d}" / "data.mdb") for number in range(2))
        assert stats.live_bytes < stats.used_bytes <= stats.file_bytes == on_disk
