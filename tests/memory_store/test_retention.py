"""Retention: which blocks are deleted, which keep all but their KV, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memory_store import (
    BlockConflict,
    BlockNotFound,
    InvalidRecord,
    KvDropped,
    Retention,
    Store,
    StreamNotFound,
    TimeRange,
)
from tests.memory_store.conformance import (
    D,
    FakeClock,
    H,
    S,
    brute_force,
    expected_kv,
    fetch,
    fill,
    make_block,
    make_commit,
    make_record,
    make_tokens,
    same_bits,
)
from tests.memory_store.upkeep_helpers import append, flipped, live, put, removed, windowed


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Store:
    return Store.open(tmp_path / "data", clock=clock)


def test_more_blocks_than_allowed_go_oldest_first_as_new_ones_come(store: Store) -> None:
    store.create_stream(windowed(2))
    store.upkeep.set_retention("cam", Retention(max_blocks=5))
    append(store, 0, 20)
    assert live(store) == [15, 16, 17, 18, 19]
    stats = store.stats("cam")
    assert (stats.num_blocks, stats.num_deleted, stats.num_tokens, stats.start_s) == (20, 15, 20, 15.0)
    blocks = [make_block(at) for at in range(20)]
    assert same_bits(fetch(store, [15, 19]), expected_kv([blocks[15], blocks[19]]))
    with pytest.raises(BlockNotFound, match=r"block 3 .* was deleted"):
        fetch(store, [3])
    queries = np.random.default_rng(5).standard_normal((S, H, D)).astype(np.float32)
    scores = brute_force(blocks[15:], queries, per_head=False)
    for ranked, row in zip(store.search("cam", queries, limit=3, blocks=range(0, 20)), scores, strict=True):
        assert [hit.block_idx for hit in ranked] == (15 + np.argsort(-row)[:3]).tolist()


def test_limits_by_bytes_count_what_is_kept(store: Store) -> None:
    store.create_stream(windowed(1))
    append(store, 0, 4)
    per_block = store.stats("cam").num_bytes // 4
    store.upkeep.set_retention("cam", Retention(max_bytes=3 * per_block + 10))
    append(store, 4, 10)
    assert live(store) == [7, 8, 9]
    assert store.stats("cam").num_bytes <= 3 * per_block + 10


def test_the_window_of_a_stream_is_never_deleted_nor_aged(store: Store, clock: FakeClock) -> None:
    store.create_stream(windowed(3))
    append(store, 0, 6)
    store.upkeep.set_retention("cam", Retention(max_blocks=0, ttl_s=0, summary_only_after_s=0))
    clock.now_s += 1e6
    store.upkeep.housekeep()
    assert live(store) == [3, 4, 5]
    assert store.without_kv("cam", [3, 4, 5]) == {}
    append(store, 6, 7)
    assert live(store) == [4, 5, 6]


def test_blocks_go_when_their_time_has_come_but_for_pinned_ones(store: Store, clock: FakeClock) -> None:
    store.create_stream(windowed(1))
    for at in range(8):
        clock.now_s = 1000.0 + 10 * at
        append(store, at, at + 1)
    policy = Retention(ttl_s=35, pinned=(TimeRange(start_s=1.0, end_s=2.1),))
    store.upkeep.set_retention("cam", policy)
    assert store.upkeep.get_retention("cam") == policy
    store.upkeep.housekeep()  # at 1070: those stored until 1035 are due
    assert live(store) == [1, 2, 4, 5, 6, 7]
    assert store.blocks_in("cam", TimeRange(start_s=0, end_s=4.5)) == range(1, 5)
    assert store.blocks_in("cam", TimeRange(start_s=3.0, end_s=3.9)) == range(0)
    queries = np.random.default_rng(7).standard_normal((S, H, D)).astype(np.float32)
    kept = [1, 2, 4, 5]
    scores = brute_force([make_block(at) for at in kept], queries, per_head=True)
    found = store.search("cam", queries, limit=10, blocks=range(0, 6), per_head=True)
    for ranked, row in zip(found, scores, strict=True):
        assert [hit.block_idx for hit in ranked] == [kept[at] for at in np.argsort(-row)]
    store.upkeep.set_retention("cam", Retention(ttl_s=35))
    store.upkeep.housekeep()
    assert live(store) == [4, 5, 6, 7]


def test_a_block_that_grew_old_keeps_all_but_its_kv(store: Store, clock: FakeClock) -> None:
    store.create_stream(windowed(2))
    append(store, 0, 5)
    before = store.stats("cam").num_bytes
    store.upkeep.set_retention("cam", Retention(summary_only_after_s=60))
    assert store.upkeep.housekeep().aged_blocks == 0
    clock.now_s += 60
    assert store.upkeep.housekeep().aged_blocks == 3
    assert store.upkeep.housekeep().aged_blocks == 0
    assert store.without_kv("cam", range(5)) == {0: "aged", 1: "aged", 2: "aged"}
    assert all(np.array_equal(own, make_tokens(at)) for at, own in enumerate(store.read_tokens("cam", range(5))))
    assert store.read_thumbnails("cam", [0]) == [b"jpeg 0"]
    with pytest.raises(KvDropped, match=r"block\(s\) 0, 2 .*re-encode needed") as told:
        fetch(store, [0, 2, 4])
    assert told.value.ids["block_idxs"] == [0, 2]
    assert store.stats("cam").num_absent == 3
    assert store.stats("cam").num_bytes < before
    queries = np.ones((S, H, D), np.float32)
    assert len(store.search("cam", queries, limit=9, blocks=range(5))[0]) == 5
    again = [make_block(at) for at in range(2, 6)]  # those sent again are known, whether their KV is kept or not
    store.commit([make_commit(*again, num_blocks=6)])
    conflicting = make_block(0, tokens=make_tokens(1))
    with pytest.raises(BlockConflict):
        store.commit([make_commit(conflicting, num_blocks=6)])
    store.upkeep.set_retention("cam", Retention(max_blocks=3))
    append(store, 6, 7)
    assert live(store) == [4, 5, 6]
    stats = store.stats("cam")
    assert stats.num_absent == 0
    assert stats.num_bytes == pytest.approx(before / 5 * 3, rel=0.02)


def test_what_is_pinned_no_more_grows_old(store: Store, clock: FakeClock) -> None:
    store.create_stream(windowed(1))
    append(store, 0, 5)
    clock.now_s += 100
    pinned = (TimeRange(start_s=1.0, end_s=1.1),)
    store.upkeep.set_retention("cam", Retention(summary_only_after_s=60, pinned=pinned))
    store.upkeep.housekeep()
    assert store.without_kv("cam", range(5)) == {0: "aged", 2: "aged", 3: "aged"}
    store.upkeep.set_retention("cam", Retention(summary_only_after_s=60))
    assert store.upkeep.housekeep().aged_blocks == 1
    assert sorted(store.without_kv("cam", range(5))) == [0, 1, 2, 3]


def test_a_block_of_unknown_age_is_passed_by(store: Store, clock: FakeClock) -> None:
    store.create_stream(windowed(1))
    append(store, 0, 5)
    put(store, "ages", removed, block_idx=1)
    clock.now_s += 100
    store.upkeep.set_retention("cam", Retention(ttl_s=60))
    store.upkeep.housekeep()
    assert live(store) == [1, 4]


def test_one_that_fails_stops_neither_commits_nor_the_retention_of_others(store: Store, clock: FakeClock) -> None:
    store.create_stream(windowed(1))
    append(store, 0, 5)
    store.create_stream(make_record("other", settings={"window_blocks": 1}))
    others = [make_block(at, stream_id="other") for at in range(5)]
    store.commit([make_commit(*others, num_blocks=5, stream_id="other")])
    for name in ("cam", "other"):
        store.upkeep.set_retention(name, Retention(max_blocks=2, summary_only_after_s=10))
    put(store, "summaries", flipped, block_idx=0)
    put(store, "ages", flipped, block_idx=1)
    put(store, "blocks", flipped, block_idx=2)
    put(store, "policies", flipped)
    append(store, 5, 7)
    store.upkeep.housekeep()
    assert store.stats("other").num_deleted == 3
    store.upkeep.set_retention("cam", Retention(max_blocks=2))
    append(store, 7, 8)
    assert live(store) == [6, 7]
    assert store.upkeep.verify().findings == ()


def test_retention_goes_on_after_a_repair_took_the_newest_block(store: Store, clock: FakeClock) -> None:
    store.create_stream(windowed(1))
    append(store, 0, 4)
    put(store, "blocks", removed, block_idx=3)
    store.upkeep.verify(repair=True)
    clock.now_s += 10
    store.upkeep.set_retention("cam", Retention(ttl_s=0))
    store.upkeep.housekeep()
    assert live(store) == [2]


def test_many_blocks_go_in_short_steps(store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_store.retention.BATCH", 3)
    store.create_stream(windowed(1))
    append(store, 0, 20)
    clock.now_s += 100
    store.upkeep.set_retention("cam", Retention(summary_only_after_s=60, max_blocks=12))
    before = store.upkeep.stats().transactions
    kept = store.upkeep.housekeep()
    assert (kept.deleted_blocks, kept.aged_blocks) == (8, 11)
    assert store.upkeep.stats().transactions - before >= 6
    assert live(store) == [*range(8, 20)]
    assert store.upkeep.verify().findings == ()


def test_what_a_deleted_block_said_may_come_again(store: Store) -> None:
    store.create_stream(windowed(1))
    store.upkeep.set_retention("cam", Retention(max_blocks=2))
    append(store, 0, 6)
    store.commit([make_commit(*(make_block(at) for at in range(1, 7)), num_blocks=7)])
    assert live(store) == [5, 6]


def test_retention_survives_reopening_and_goes_with_its_stream(tmp_path: Path, store: Store) -> None:
    fill(store, 3)
    store.upkeep.set_retention("cam", Retention(max_blocks=2))
    store.close()
    with Store.open(tmp_path / "data") as again:
        assert again.upkeep.get_retention("cam") == Retention(max_blocks=2)
        again.delete_stream("cam")
        with pytest.raises(StreamNotFound):
            again.upkeep.get_retention("cam")
        fill(again, 1)
        assert again.upkeep.get_retention("cam") is None


@pytest.mark.parametrize("name", ["ttl_s", "max_blocks", "max_bytes", "summary_only_after_s"])
def test_a_limit_below_zero_is_refused(name: str) -> None:
    with pytest.raises(InvalidRecord, match=name):
        Retention(**{name: -1})  # type: ignore[arg-type]


def test_the_file_stops_growing_under_churn(tmp_path: Path) -> None:
    kv = np.zeros((3, 2, 2, 4, 2048), np.float32)
    summary = np.ones((2, 2, 2, 2048), np.float32)
    with Store.open(tmp_path) as store:
        store.create_stream(windowed(2))
        store.upkeep.set_retention("cam", Retention(max_blocks=50))
        sizes = []
        for at in range(500):
            append(store, at, at + 1, kv=kv, summary=summary)
            sizes.append((tmp_path / "shard-0000/data.mdb").stat().st_size)
        live_bytes = store.stats("cam").num_bytes
    assert sizes[-1] == sizes[150]
    assert sizes[-1] <= 1.15 * live_bytes
