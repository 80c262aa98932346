"""Several shards, and commits that share a transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memory_store import (
    BlockConflict,
    CorruptRecord,
    Durability,
    EpochFenced,
    InvalidRecord,
    Store,
    StoreUnavailable,
    StreamNotFound,
)
from memory_store import durability as durability_module
from memory_store.blobs import Blobs, Snapshot
from memory_store.folder import shard_of
from tests.memory_store.conformance import (
    FakeClock,
    StoreConformance,
    expected_kv,
    fetch,
    fill,
    make_block,
    make_commit,
    make_record,
    make_tokens,
    same_bits,
)


class TestFourShards(StoreConformance):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def store(self, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
        with Store.open(tmp_path / "data", shards=4, clock=clock, map_size=1 << 20) as store:
            yield store


def test_streams_spread_over_shards_and_stay_where_they_are(tmp_path: Path) -> None:
    names = [f"cam-{number}" for number in range(40)]
    with Store.open(tmp_path, shards=4) as store:
        for name in names:
            fill(store, 2, stream_id=name)
    sizes = [len(list(tmp_path.glob(f"shard-{number:04d}/data.mdb"))) for number in range(4)]
    assert sizes == [1, 1, 1, 1]
    used = np.bincount([shard_of(name, 4) for name in names], minlength=4)
    assert used.min() >= 3
    with Store.open(tmp_path, read_only=True) as store:
        assert [record.stream_id for record in store.list_streams()] == sorted(names)
        assert all(store.stats(name).num_blocks == 2 for name in names)


def test_a_shard_more_moves_only_what_goes_to_it() -> None:
    names = [f"stream-{number}" for number in range(2000)]
    moved = [(shard_of(name, 5), shard_of(name, 6)) for name in names if shard_of(name, 5) != shard_of(name, 6)]
    assert all(after == 5 for _, after in moved)
    assert 200 < len(moved) < 500


def test_the_number_of_shards_is_fixed(tmp_path: Path) -> None:
    Store.open(tmp_path, shards=3).close()
    with pytest.raises(InvalidRecord, match="has 3 shard"):
        Store.open(tmp_path, shards=4)
    with Store.open(tmp_path) as store:
        fill(store, 1)
    (tmp_path / "shard-0001").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="2 of its 3"):
        Store.open(tmp_path)
    for bad in (0, 5000):
        with pytest.raises(InvalidRecord, match="1 to 1024"):
            Store.open(tmp_path / "new", shards=bad)


def test_a_changed_shard_count_is_noticed(tmp_path: Path) -> None:
    Store.open(tmp_path, shards=3).close()
    (tmp_path / "manifest.json").write_text('{"format": 2, "shards": 2}')
    with pytest.raises(CorruptRecord, match="there are 3"):
        Store.open(tmp_path)


def test_format_1_is_read_and_brought_up_to_date_when_written(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        blocks = fill(store, 3)
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"format": 1, "shards": 1}')
    with Store.open(tmp_path, read_only=True) as store:
        assert same_bits(fetch(store, [0, 1, 2]), expected_kv(blocks))
    assert '"format": 1' in manifest.read_text()
    Store.open(tmp_path).close()
    assert '"format": 2' in manifest.read_text()


@pytest.fixture
def grouped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many changes each transaction nests."""
    sizes: list[int] = []
    plain = Blobs.write

    def write(self: Blobs, change: object) -> object:
        sizes.append(0)
        return plain(self, change)  # type: ignore[arg-type]

    def nested(self: Snapshot) -> object:
        sizes[-1] += 1
        return plain_nested(self)

    plain_nested = Snapshot.nested
    monkeypatch.setattr(Blobs, "write", write)
    monkeypatch.setattr(Snapshot, "nested", nested)
    return sizes


def run_threads(count: int, work: object) -> dict[int, Exception | None]:
    found: dict[int, Exception | None] = {}
    ready = threading.Barrier(count, timeout=10)

    def run(number: int) -> None:
        try:
            ready.wait()
            work(number)  # type: ignore[operator]
            found[number] = None
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_commits_of_many_threads_share_transactions_and_fail_alone(tmp_path: Path, grouped: list[int]) -> None:
    with Store.open(tmp_path, map_size=1 << 20) as store:
        for number in range(6):
            store.create_stream(make_record(f"s{number}"))
        fill(store, 1, stream_id="s6")
        fill(store, 1, stream_id="s7")
        store.commit([make_commit(num_blocks=1, stream_id="s7", epoch=5)])
        grouped.clear()

        def work(number: int) -> None:
            stream = f"s{number}" if number != 5 else "missing"
            for at in range(8):
                tokens = make_tokens(at + 1 if number == 6 else at)
                block = make_block(at, stream_id=stream, tokens=tokens)
                store.commit([make_commit(block, num_blocks=at + 1, stream_id=stream)])

        found = run_threads(8, work)
        kinds = {number: type(error) for number, error in found.items() if error is not None}
        assert kinds == {5: StreamNotFound, 6: BlockConflict, 7: EpochFenced}
        assert [store.stats(f"s{number}").num_blocks for number in range(8)] == [8] * 5 + [0, 1, 1]
    assert sum(max(size, 1) for size in grouped) == 5 * 8 + 3
    assert len(grouped) < 40 and max(grouped) >= 2


def test_an_interrupted_leader_leaves_the_others_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, interrupted = Blobs.write, threading.Event()
    second_waits = threading.Event()

    def write(self: Blobs, change: object) -> object:
        if not interrupted.is_set():
            interrupted.set()
            second_waits.wait(10)
            raise KeyboardInterrupt
        return plain(self, change)  # type: ignore[arg-type]

    with Store.open(tmp_path) as store:
        for name in ("a", "b"):
            store.create_stream(make_record(name))
        monkeypatch.setattr(Blobs, "write", write)
        ended: list[BaseException | None] = []

        def first() -> None:
            try:
                store.commit([make_commit(make_block(0, stream_id="a"), num_blocks=1, stream_id="a")])
            except KeyboardInterrupt as error:
                ended.append(error)

        def second() -> None:
            store.commit([make_commit(make_block(0, stream_id="b"), num_blocks=1, stream_id="b")])

        threads = [threading.Thread(target=first), threading.Thread(target=second)]
        threads[0].start()
        assert interrupted.wait(10)
        threads[1].start()
        while len(store._shard("a").writer._waiting) < 1:
            pass
        second_waits.set()
        for thread in threads:
            thread.join(10)
        assert len(ended) == 1
        assert (store.stats("a").num_blocks, store.stats("b").num_blocks) == (0, 1)


@pytest.mark.parametrize("durability", list(Durability))
def test_every_durability_keeps_what_was_closed(tmp_path: Path, durability: Durability) -> None:
    with Store.open(tmp_path, durability=durability) as store:
        blocks = fill(store, 3)
    assert not (tmp_path / "shard-0000" / "unsynced").exists()
    with Store.open(tmp_path, read_only=True) as store:
        assert same_bits(fetch(store, [0, 1, 2]), expected_kv(blocks))


def test_a_relaxed_shard_is_refused_after_another_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path, durability=Durability.RELAXED)
    fill(store, 1)
    assert (tmp_path / "shard-0000" / "unsynced").exists()
    with Store.open(tmp_path / "other") as other:
        fill(other, 1)
    store.close()
    durability_module.mark_unsynced(tmp_path / "shard-0000")  # as a killed process leaves it
    Store.open(tmp_path).close()
    durability_module.mark_unsynced(tmp_path / "shard-0000")
    monkeypatch.setattr(durability_module, "boot_id", lambda: "another")
    for read_only in (False, True):
        with pytest.raises(CorruptRecord, match="durability relaxed"):
            Store.open(tmp_path, read_only=read_only)
    with Store.open(tmp_path, accept_unsynced=True) as store:
        assert store.upkeep.verify(repair=True).whole
    Store.open(tmp_path).close()


def test_a_folder_whose_making_was_cut_off_is_made_as_it_was_begun(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"shard-{number:04d}").mkdir()
    with pytest.raises(InvalidRecord, match="begun with 3"):
        Store.open(tmp_path, shards=2)
    with Store.open(tmp_path) as store:
        fill(store, 1)
    with Store.open(tmp_path, shards=3) as store:
        assert store.stats("cam").num_blocks == 1


def test_a_closed_store_says_so_whatever_the_commit(tmp_path: Path) -> None:
    store = Store.open(tmp_path, shards=2)
    for number in range(6):
        fill(store, 1, stream_id=f"s{number}")
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.commit([make_commit(num_blocks=1, stream_id=f"s{number}") for number in range(6)])
