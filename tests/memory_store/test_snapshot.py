"""Snapshots of a store in use, and stores restored from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memory_store import InvalidRecord, Store, StoreFull, restore
from tests.memory_store.conformance import FakeClock, expected_kv, fetch, fill, make_block, same_bits
from tests.memory_store.upkeep_helpers import append


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "data", clock=FakeClock())


@pytest.mark.parametrize("shards", [1, 3])
def test_a_snapshot_taken_while_writing_is_a_whole_store(tmp_path: Path, shards: int) -> None:
    with Store.open(tmp_path / "data", shards=shards) as store:
        for name in ("cam", "b", "c"):
            fill(store, 3, stream_id=name)
        store.upkeep.snapshot(tmp_path / "copy")
        append(store, 3, 9)
    with Store.open(tmp_path / "copy", read_only=True) as copy:
        assert copy.stats("cam").num_blocks == 3
        assert copy.upkeep.verify().findings == ()
    restore(tmp_path / "copy", tmp_path / "back")
    with Store.open(tmp_path / "back") as back:
        assert same_bits(fetch(back, [0, 1, 2]), expected_kv([make_block(at) for at in range(3)]))
        append(back, 3, 5)
        assert back.upkeep.verify().findings == ()
    with Store.open(tmp_path / "copy", read_only=True) as copy:
        assert copy.stats("cam").num_blocks == 3


def test_nothing_is_overwritten(tmp_path: Path, store: Store) -> None:
    fill(store, 1)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(InvalidRecord, match="not empty"):
        store.upkeep.snapshot(tmp_path / "there")
    store.close()
    with pytest.raises(InvalidRecord, match="not empty"):
        restore(tmp_path / "data", tmp_path / "there")


def test_a_snapshot_cut_short_leaves_nothing(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 1)
    before = sorted(tmp_path.iterdir())

    def fail(path: Path, shards: object) -> None:
        raise StoreFull("no space left")

    monkeypatch.setattr("memory_store.folder.write_manifest", fail)
    with pytest.raises(StoreFull):
        store.upkeep.snapshot(tmp_path / "copy")
    assert sorted(tmp_path.iterdir()) == before


def test_a_snapshot_survives_the_loss_of_its_store(tmp_path: Path, store: Store) -> None:
    fill(store, 2)
    store.upkeep.snapshot(tmp_path / "copy")
    store.close()
    shutil.rmtree(tmp_path / "data")
    restore(tmp_path / "copy", tmp_path / "data")
    with Store.open(tmp_path / "data") as back:
        assert back.stats("cam").num_blocks == 2
