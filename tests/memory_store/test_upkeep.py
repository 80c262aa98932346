"""Retention, housekeeping, verification and repair, snapshots."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from memory_store import (
    BlockConflict,
    BlockNotFound,
    CorruptRecord,
    Finding,
    InvalidRecord,
    KvDropped,
    Quota,
    QuotaExceeded,
    Retention,
    Store,
    StoreFull,
    StoreUnavailable,
    StreamExists,
    StreamNotFound,
    TimeRange,
    restore,
)
from memory_store.blobs import Snapshot
from memory_store.catalog import get_entry
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

DATA = "shard-0000/data.mdb"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Store:
    return Store.open(tmp_path / "data", clock=clock)


def append(store: Store, first: int, stop: int, **changes: object) -> None:
    """Commit blocks first..stop-1 of "cam", one by one."""
    for at in range(first, stop):
        store.commit([make_commit(make_block(at, **changes), num_blocks=at + 1)])


def live(store: Store) -> list[int]:
    return np.flatnonzero(np.isfinite(store.times("cam")[:, 0])).tolist()


def windowed(window: int) -> object:
    return make_record(settings={"window_blocks": window})


class TestRetention:
    def test_more_blocks_than_allowed_go_oldest_first_as_new_ones_come(self, store: Store) -> None:
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

    def test_limits_by_bytes_count_what_is_kept(self, store: Store) -> None:
        store.create_stream(windowed(1))
        append(store, 0, 4)
        per_block = store.stats("cam").num_bytes // 4
        store.upkeep.set_retention("cam", Retention(max_bytes=3 * per_block + 10))
        append(store, 4, 10)
        assert live(store) == [7, 8, 9]
        assert store.stats("cam").num_bytes <= 3 * per_block + 10

    def test_the_window_of_a_stream_is_never_deleted_nor_aged(self, store: Store, clock: FakeClock) -> None:
        store.create_stream(windowed(3))
        append(store, 0, 6)
        store.upkeep.set_retention("cam", Retention(max_blocks=0, ttl_s=0, summary_only_after_s=0))
        clock.now_s += 1e6
        store.upkeep.housekeep()
        assert live(store) == [3, 4, 5]
        assert store.without_kv("cam", [3, 4, 5]) == {}
        append(store, 6, 7)
        assert live(store) == [4, 5, 6]

    def test_blocks_go_when_their_time_has_come_but_for_pinned_ones(self, store: Store, clock: FakeClock) -> None:
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

    def test_a_block_that_grew_old_keeps_all_but_its_kv(self, store: Store, clock: FakeClock) -> None:
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

    def test_what_is_pinned_no_more_grows_old(self, store: Store, clock: FakeClock) -> None:
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

    def test_a_block_of_unknown_age_is_passed_by(self, store: Store, clock: FakeClock) -> None:
        store.create_stream(windowed(1))
        append(store, 0, 5)
        put(store, "ages", removed, block_idx=1)
        clock.now_s += 100
        store.upkeep.set_retention("cam", Retention(ttl_s=60))
        store.upkeep.housekeep()
        assert live(store) == [1, 4]

    def test_many_blocks_go_in_short_steps(
        self, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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

    def test_what_a_deleted_block_said_may_come_again(self, store: Store) -> None:
        store.create_stream(windowed(1))
        store.upkeep.set_retention("cam", Retention(max_blocks=2))
        append(store, 0, 6)
        store.commit([make_commit(*(make_block(at) for at in range(1, 7)), num_blocks=7)])
        assert live(store) == [5, 6]

    def test_retention_survives_reopening_and_goes_with_its_stream(self, tmp_path: Path, store: Store) -> None:
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
    def test_a_limit_below_zero_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidRecord, match=name):
            Retention(**{name: -1})

    def test_the_file_stops_growing_under_churn(self, tmp_path: Path) -> None:
        kv = np.zeros((3, 2, 2, 4, 2048), np.float32)
        summary = np.ones((2, 2, 2, 2048), np.float32)
        with Store.open(tmp_path) as store:
            store.create_stream(windowed(2))
            store.upkeep.set_retention("cam", Retention(max_blocks=50))
            sizes = []
            for at in range(500):
                append(store, at, at + 1, kv=kv, summary=summary)
                sizes.append((tmp_path / DATA).stat().st_size)
            live_bytes = store.stats("cam").num_bytes
        assert sizes[-1] == sizes[150]
        assert sizes[-1] <= 1.15 * live_bytes

    def test_a_deleted_stream_is_gone_at_once_and_its_space_comes_back_in_the_background(self, tmp_path: Path) -> None:
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

    def test_what_a_killed_process_left_to_remove_is_removed_by_the_next(self, tmp_path: Path) -> None:
        with Store.open(tmp_path) as store:
            fill(store, 3)
            store.upkeep.stop()
            store.delete_stream("cam")
        with Store.open(tmp_path) as store:
            fill(store, 2)
            store.upkeep.housekeep()
            assert store.upkeep.verify().findings == ()
            assert store.stats("cam").num_blocks == 2


class TestQuotas:
    def commit(self, store: Store, stream: str, block_idx: int) -> None:
        block = make_block(block_idx, stream_id=stream)
        store.commit([make_commit(block, num_blocks=block_idx + 1, stream_id=stream)])

    def test_a_tenant_is_refused_above_its_quota_and_taken_again_below_the_margin(self, store: Store) -> None:
        for stream, tenant in (("a1", "a"), ("a2", "a"), ("b1", "b")):
            store.create_stream(make_record(stream, tenant=tenant, settings={"window_blocks": 1}))
        self.commit(store, "a1", 0)
        size = store.stats("a1").num_bytes
        store.upkeep.set_quota("a", Quota(max_bytes=4 * size, release=0.8))
        self.commit(store, "a2", 0)
        self.commit(store, "a2", 1)
        self.commit(store, "a2", 2)
        with pytest.raises(QuotaExceeded, match="tenant 'a'") as told:
            self.commit(store, "a1", 1)
        assert told.value.ids["tenant"] == "a"
        store.commit([make_commit(num_blocks=1, stream_id="a1")])  # a state alone is always taken
        for at in range(6):
            self.commit(store, "b1", at)
        store.upkeep.set_retention("a2", Retention(max_blocks=2))
        store.upkeep.housekeep()
        with pytest.raises(QuotaExceeded):  # three blocks and one more are below the quota, not below the margin
            self.commit(store, "a1", 1)
        store.delete_stream("a2")
        self.commit(store, "a1", 1)
        self.commit(store, "a1", 2)
        assert store.upkeep.usage.of("a") == store.stats("a1").num_bytes

    def test_a_commit_may_be_repeated_at_the_limit_and_one_bad_stream_lifts_no_quota(
        self, tmp_path: Path, store: Store
    ) -> None:
        store.create_stream(make_record("a1", tenant="a"))
        store.create_stream(make_record("cam", tenant="a"))
        self.commit(store, "a1", 0)
        self.commit(store, "cam", 0)
        store.upkeep.set_quota("a", Quota(max_bytes=store.stats("a1").num_bytes))
        self.commit(store, "a1", 0)
        put(store, "meta", flipped)
        store.close()
        with Store.open(tmp_path / "data") as again, pytest.raises(QuotaExceeded):
            self.commit(again, "a1", 1)

    def test_quotas_survive_reopening(self, tmp_path: Path, store: Store) -> None:
        store.create_stream(make_record("a1", tenant="a"))
        self.commit(store, "a1", 0)
        store.upkeep.set_quota("a", Quota(max_bytes=10))
        store.close()
        with Store.open(tmp_path / "data") as again:
            with pytest.raises(QuotaExceeded):
                self.commit(again, "a1", 1)
            again.upkeep.set_quota("a", None)
            self.commit(again, "a1", 1)

    def test_a_stream_does_not_change_hands(self, store: Store) -> None:
        store.create_stream(make_record(tenant="a"))
        with pytest.raises(StreamExists, match="tenant"):
            store.create_stream(make_record(tenant="b"))

    @pytest.mark.parametrize(
        "fields", [{"max_bytes": -1}, {"max_bytes": 1, "release": 0}, {"max_bytes": 1, "release": 2}]
    )
    def test_a_quota_that_makes_no_sense_is_refused(self, fields: dict[str, float]) -> None:
        with pytest.raises(InvalidRecord):
            Quota(**fields)  # type: ignore[arg-type]


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


class TestVerify:
    def test_a_store_that_is_whole(self, store: Store) -> None:
        fill(store, 70)
        fill(store, 3, stream_id="other")
        seen: list[tuple[int, int, int]] = []
        report = store.upkeep.verify(progress=lambda *told: seen.append(told))
        assert (report.streams, report.blocks, report.findings) == (2, 73, ())
        assert report.whole
        assert seen[-1][:2] == (73, 73)
        assert report.num_bytes > 73 * make_block(0).kv.nbytes

    @pytest.mark.parametrize(
        ("table", "what", "change"),
        [
            ("blocks", "kv", flipped),
            ("blocks", "kv", removed),
            ("summaries", "summary", flipped),
            ("thumbnails", "thumbnail", flipped),
            ("ages", "age", flipped),
        ],
    )
    def test_what_fails_is_found_and_mended(
        self, store: Store, table: str, what: str, change: Callable[[bytes], bytes | None]
    ) -> None:
        blocks = fill(store, 5)
        put(store, table, change, block_idx=2)
        report = store.upkeep.verify()
        assert [(f.stream_id, f.block_idx, f.what, f.mended) for f in report.findings] == [("cam", 2, what, "")]
        assert not report.whole
        assert store.upkeep.verify(repair=True).whole
        assert store.upkeep.verify().findings == ()
        assert same_bits(fetch(store, [0, 1, 3, 4]), expected_kv([blocks[at] for at in (0, 1, 3, 4)]))
        append(store, 5, 6)
        assert store.upkeep.verify().findings == ()

    def test_quarantined_kv_is_told_and_never_given(self, store: Store) -> None:
        fill(store, 3)
        put(store, "blocks", flipped, block_idx=1)
        store.upkeep.verify(repair=True)
        assert store.without_kv("cam", range(3)) == {1: "corrupt"}
        with pytest.raises(KvDropped, match="corrupt"):
            fetch(store, [1])

    def test_kv_that_fails_while_it_is_read_is_quarantined(self, store: Store) -> None:
        fill(store, 3)
        put(store, "blocks", flipped, block_idx=1)
        with pytest.raises(CorruptRecord, match="block 1 of stream 'cam'"):
            fetch(store, [0, 1])
        assert store.without_kv("cam", range(3)) == {1: "corrupt"}
        assert fetch(store, [0, 2]).size

    def test_totals_are_counted_anew(self, store: Store) -> None:
        fill(store, 4)
        before = store.stats("cam")
        put(store, "meta", flipped)
        with pytest.raises(CorruptRecord):
            store.stats("cam")
        assert [finding.what for finding in store.upkeep.verify().findings] == ["totals"]
        assert store.upkeep.verify(repair=True).whole
        assert store.stats("cam") == before

    def test_what_belongs_to_nothing_is_an_orphan(self, store: Store) -> None:
        fill(store, 2)

        def plant(snapshot: Snapshot) -> None:
            entry = get_entry(snapshot, "cam")
            snapshot.put("thumbnails", entry.block_key(7), b"x")
            snapshot.put("blocks", b"\0\0\0\x63\0\0\0\0", b"y")
            snapshot.put("states", b"\0\0\0\x63", b"z")

        store._shard("cam").writer.write(plant)
        found = store.upkeep.verify().findings
        assert sorted(finding.problem.split(" belong")[0] for finding in found) == [
            "1 value(s) in blocks", "1 value(s) in states", "1 value(s) in thumbnails",
        ]  # fmt: skip
        store.upkeep.verify(repair=True)
        assert store.upkeep.verify().findings == ()

    @pytest.mark.parametrize(("table", "what"), [("states", "state"), ("policies", "retention")])
    def test_what_cannot_be_mended_says_so(self, store: Store, table: str, what: str) -> None:
        fill(store, 2)
        store.upkeep.set_retention("cam", Retention(max_blocks=9))
        put(store, table, flipped)
        report = store.upkeep.verify(repair=True)
        assert [finding.what for finding in report.findings] == [what]
        assert not report.whole

    def test_a_stream_record_that_fails_takes_nothing_with_it(self, store: Store) -> None:
        fill(store, 2)

        def damage(snapshot: Snapshot) -> None:
            snapshot.put("streams", b"cam", flipped(bytes(snapshot.get("streams", b"cam") or b"")))

        store._shard("cam").writer.write(damage)
        report = store.upkeep.verify(repair=True)
        assert [(finding.stream_id, finding.what) for finding in report.findings] == [("cam", "stream")]

    def test_repair_takes_nothing_for_an_orphan_while_a_stream_is_hidden(self, store: Store) -> None:
        fill(store, 3)
        fill(store, 2, stream_id="other")
        plain = Snapshot.count
        with pytest.MonkeyPatch.context() as patch:  # the table says that there is one stream more than is found
            patch.setattr(Snapshot, "count", lambda self, table: plain(self, table) + (table == "streams"))
            with pytest.raises(CorruptRecord, match="2 of 3 streams"):
                store.list_streams()
            report = store.upkeep.verify(repair=True)
        assert [finding.what for finding in report.findings] == ["database"]
        assert not report.whole
        assert [store.stats(name).num_blocks for name in ("cam", "other")] == [3, 2]

    def test_totals_and_state_that_are_missing_cost_no_block(self, store: Store) -> None:
        blocks = fill(store, 3)
        put(store, "meta", removed)
        put(store, "states", removed)
        store.upkeep.verify(repair=True)
        assert same_bits(fetch(store, [0, 1, 2]), expected_kv(blocks))

    def test_reading_a_block_whose_kv_is_missing_leaves_the_stream_usable(self, tmp_path: Path, store: Store) -> None:
        fill(store, 4)
        put(store, "blocks", removed, block_idx=2)
        with pytest.raises(CorruptRecord):
            fetch(store, [2])
        store.close()
        with Store.open(tmp_path / "data") as again:
            assert len(again.search("cam", np.ones((S, H, D), np.float32), limit=9, blocks=range(4))[0]) == 3
            assert live(again) == [0, 1, 3]
            append(again, 4, 5)
            assert again.upkeep.verify().findings == ()

    def test_one_that_fails_stops_neither_commits_nor_the_retention_of_others(
        self, store: Store, clock: FakeClock
    ) -> None:
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

    def test_retention_goes_on_after_a_repair_took_the_newest_block(self, store: Store, clock: FakeClock) -> None:
        store.create_stream(windowed(1))
        append(store, 0, 4)
        put(store, "blocks", removed, block_idx=3)
        store.upkeep.verify(repair=True)
        clock.now_s += 10
        store.upkeep.set_retention("cam", Retention(ttl_s=0))
        store.upkeep.housekeep()
        assert live(store) == [2]

    def test_one_bad_layer_costs_no_tokens_and_a_commit_may_be_repeated(self, store: Store) -> None:
        blocks = fill(store, 3)
        put(store, "blocks", flipped, block_idx=1)
        store.upkeep.verify(repair=True)
        assert np.array_equal(store.read_tokens("cam", [0, 1, 2])[1], make_tokens(1))
        store.commit([make_commit(*blocks, num_blocks=3)])

    def test_a_blank_summary_of_a_block_without_kv_counts_what_is_there(self, store: Store, clock: FakeClock) -> None:
        store.create_stream(windowed(1))
        append(store, 0, 2)
        clock.now_s += 10
        store.upkeep.set_retention("cam", Retention(summary_only_after_s=5))
        store.upkeep.housekeep()
        before = store.stats("cam").num_bytes
        put(store, "summaries", flipped, block_idx=0)
        store.upkeep.verify(repair=True)
        assert store.stats("cam").num_bytes == before

    def test_a_note_of_absence_that_fails_is_mended_and_others_are_still_checked(
        self, store: Store, clock: FakeClock
    ) -> None:
        store.create_stream(windowed(1))
        append(store, 0, 3)
        clock.now_s += 10
        store.upkeep.set_retention("cam", Retention(summary_only_after_s=5))
        store.upkeep.housekeep()
        fill(store, 2, stream_id="other")
        put(store, "absent", flipped, block_idx=1)
        report = store.upkeep.verify(repair=True)
        assert report.whole
        assert report.blocks == 5
        assert store.upkeep.verify().findings == ()
        assert live(store) == [0, 2]

    def test_a_conversation_that_fails_is_removed_and_its_stream_can_be_deleted(self, store: Store) -> None:
        fill(store, 1)
        for session in ("cam/1", "cam/2"):
            store.put_turns(session, b"what", 1e12)

        def damage(snapshot: Snapshot) -> None:
            for key in (b"scam/1", b"scam/2"):
                snapshot.put("turns", key, flipped(bytes(snapshot.get("turns", key) or b"")))

        store._shard("cam").writer.write(damage)
        store.put_turns("cam/1", b"again", 1e12)
        assert store.get_turns("cam/1", 0) == b"again"
        assert [finding.what for finding in store.upkeep.verify().findings] == ["session"]
        store.delete_stream("cam")
        store.upkeep.housekeep()
        assert store.upkeep.verify().findings == ()

    def test_repair_needs_a_store_opened_for_writing(self, tmp_path: Path, store: Store) -> None:
        fill(store, 1)
        store.close()
        with Store.open(tmp_path / "data", read_only=True) as reader:
            assert reader.upkeep.verify().whole
            with pytest.raises(StoreUnavailable, match="read-only"):
                reader.upkeep.verify(repair=True)

    def test_a_finding_is_plain_data(self) -> None:
        assert Finding(stream_id=None, block_idx=None, what="orphan", problem="x").mended == ""


class TestSnapshot:
    @pytest.mark.parametrize("shards", [1, 3])
    def test_a_snapshot_taken_while_writing_is_a_whole_store(self, tmp_path: Path, shards: int) -> None:
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

    def test_nothing_is_overwritten(self, tmp_path: Path, store: Store) -> None:
        fill(store, 1)
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "file").touch()
        with pytest.raises(InvalidRecord, match="not empty"):
            store.upkeep.snapshot(tmp_path / "there")
        store.close()
        with pytest.raises(InvalidRecord, match="not empty"):
            restore(tmp_path / "data", tmp_path / "there")

    def test_a_snapshot_cut_short_leaves_nothing(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(store, 1)
        before = sorted(tmp_path.iterdir())

        def fail(path: Path, shards: object) -> None:
            raise StoreFull("no space left")

        monkeypatch.setattr("memory_store.folder.write_manifest", fail)
        with pytest.raises(StoreFull):
            store.upkeep.snapshot(tmp_path / "copy")
        assert sorted(tmp_path.iterdir()) == before

    def test_a_snapshot_survives_the_loss_of_its_store(self, tmp_path: Path, store: Store) -> None:
        fill(store, 2)
        store.upkeep.snapshot(tmp_path / "copy")
        store.close()
        shutil.rmtree(tmp_path / "data")
        restore(tmp_path / "copy", tmp_path / "data")
        with Store.open(tmp_path / "data") as back:
            assert back.stats("cam").num_blocks == 2


def test_totals_of_a_folder(tmp_path: Path) -> None:
    with Store.open(tmp_path, shards=2) as store:
        fill(store, 4)
        fill(store, 3, stream_id="other")
        stats = store.upkeep.stats()
        assert (stats.shards, stats.streams, stats.blocks, stats.tokens) == (2, 2, 7, 28)
        assert stats.live_bytes == sum(store.stats(name).num_bytes for name in ("cam", "other"))
        on_disk = sum(os.path.getsize(tmp_path / f"shard-{number:04d}" / "data.mdb") for number in range(2))
        assert stats.live_bytes < stats.used_bytes <= stats.file_bytes == on_disk
