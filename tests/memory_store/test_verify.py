"""Damage: found by verifying or by reading, quarantined, and mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from memory_store import CorruptRecord, Finding, KvDropped, Retention, Store, StoreUnavailable
from memory_store.blobs import Snapshot
from memory_store.catalog import get_entry
from tests.memory_store.conformance import (
    D,
    FakeClock,
    H,
    S,
    expected_kv,
    fetch,
    fill,
    make_block,
    make_commit,
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


def test_a_store_that_is_whole(store: Store) -> None:
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
    store: Store, table: str, what: str, change: Callable[[bytes], bytes | None]
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


def test_quarantined_kv_is_told_and_never_given(store: Store) -> None:
    fill(store, 3)
    put(store, "blocks", flipped, block_idx=1)
    store.upkeep.verify(repair=True)
    assert store.without_kv("cam", range(3)) == {1: "corrupt"}
    with pytest.raises(KvDropped, match="corrupt"):
        fetch(store, [1])


def test_kv_that_fails_while_it_is_read_is_quarantined(store: Store) -> None:
    fill(store, 3)
    put(store, "blocks", flipped, block_idx=1)
    with pytest.raises(CorruptRecord, match="block 1 of stream 'cam'"):
        fetch(store, [0, 1])
    assert store.without_kv("cam", range(3)) == {1: "corrupt"}
    assert fetch(store, [0, 2]).size


def test_totals_are_counted_anew(store: Store) -> None:
    fill(store, 4)
    before = store.stats("cam")
    put(store, "meta", flipped)
    with pytest.raises(CorruptRecord):
        store.stats("cam")
    assert [finding.what for finding in store.upkeep.verify().findings] == ["totals"]
    assert store.upkeep.verify(repair=True).whole
    assert store.stats("cam") == before


def test_what_belongs_to_nothing_is_an_orphan(store: Store) -> None:
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
def test_what_cannot_be_mended_says_so(store: Store, table: str, what: str) -> None:
    fill(store, 2)
    store.upkeep.set_retention("cam", Retention(max_blocks=9))
    put(store, table, flipped)
    report = store.upkeep.verify(repair=True)
    assert [finding.what for finding in report.findings] == [what]
    assert not report.whole


def test_a_stream_record_that_fails_takes_nothing_with_it(store: Store) -> None:
    fill(store, 2)

    def damage(snapshot: Snapshot) -> None:
        snapshot.put("streams", b"cam", flipped(bytes(snapshot.get("streams", b"cam") or b"")))

    store._shard("cam").writer.write(damage)
    report = store.upkeep.verify(repair=True)
    assert [(finding.stream_id, finding.what) for finding in report.findings] == [("cam", "stream")]


def test_repair_takes_nothing_for_an_orphan_while_a_stream_is_hidden(store: Store) -> None:
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


def test_totals_and_state_that_are_missing_cost_no_block(store: Store) -> None:
    blocks = fill(store, 3)
    put(store, "meta", removed)
    put(store, "states", removed)
    store.upkeep.verify(repair=True)
    assert same_bits(fetch(store, [0, 1, 2]), expected_kv(blocks))


def test_reading_a_block_whose_kv_is_missing_leaves_the_stream_usable(tmp_path: Path, store: Store) -> None:
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


def test_one_bad_layer_costs_no_tokens_and_a_commit_may_be_repeated(store: Store) -> None:
    blocks = fill(store, 3)
    put(store, "blocks", flipped, block_idx=1)
    store.upkeep.verify(repair=True)
    assert np.array_equal(store.read_tokens("cam", [0, 1, 2])[1], make_tokens(1))
    store.commit([make_commit(*blocks, num_blocks=3)])


def test_a_blank_summary_of_a_block_without_kv_counts_what_is_there(store: Store, clock: FakeClock) -> None:
    store.create_stream(windowed(1))
    append(store, 0, 2)
    clock.now_s += 10
    store.upkeep.set_retention("cam", Retention(summary_only_after_s=5))
    store.upkeep.housekeep()
    before = store.stats("cam").num_bytes
    put(store, "summaries", flipped, block_idx=0)
    store.upkeep.verify(repair=True)
    assert store.stats("cam").num_bytes == before


def test_a_note_of_absence_that_fails_is_mended_and_others_are_still_checked(store: Store, clock: FakeClock) -> None:
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


def test_a_new_stream_never_gets_the_number_of_another(store: Store) -> None:
    fill(store, 2)
    fill(store, 1, stream_id="other")

    def damage(snapshot: Snapshot) -> None:
        value = bytearray(snapshot.get("meta", b"next_stream") or b"")
        value[-1] = 0
        snapshot.put("meta", b"next_stream", bytes(value))

    store._shard("cam").writer.write(damage)
    fill(store, 1, stream_id="fresh")
    assert (store.stats("cam").num_blocks, store.stats("fresh").num_blocks) == (2, 1)
    assert store.upkeep.verify().findings == ()


def test_a_conversation_that_fails_is_removed_and_its_stream_can_be_deleted(store: Store) -> None:
    fill(store, 1)
    for session in ("cam/1", "cam/2"):
        store.put_turns(session, b"what", 1e12)

    def damage(snapshot: Snapshot) -> None:
        for key in (b"scam/1", b"scam/2"):
            snapshot.put("turns", key, flipped(bytes(snapshot.get("turns", key) or b"")))
        snapshot.put("turns", b"scam/\xff", bytes(snapshot.get("turns", b"scam/2") or b""))  # a damaged key

    store._shard("cam").writer.write(damage)
    store.put_turns("cam/1", b"again", 1e12)
    assert store.get_turns("cam/1", 0) == b"again"
    assert [finding.what for finding in store.upkeep.verify().findings] == ["session"]
    store.delete_stream("cam")
    store.upkeep.housekeep()
    assert store.upkeep.verify().findings == ()


def test_repair_needs_a_store_opened_for_writing(tmp_path: Path, store: Store) -> None:
    fill(store, 1)
    store.close()
    with Store.open(tmp_path / "data", read_only=True) as reader:
        assert reader.upkeep.verify().whole
        with pytest.raises(StoreUnavailable, match="read-only"):
            reader.upkeep.verify(repair=True)


def test_a_finding_is_plain_data() -> None:
    assert Finding(stream_id=None, block_idx=None, what="orphan", problem="x").mended == ""
