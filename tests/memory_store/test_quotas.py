"""Quotas: a tenant at its limit is refused new blocks, and taken again once it is below the margin."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_store import InvalidRecord, Quota, QuotaExceeded, Retention, Store, StreamExists
from tests.memory_store.conformance import FakeClock, make_block, make_commit, make_record
from tests.memory_store.upkeep_helpers import flipped, put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "data", clock=FakeClock())


def commit_one(store: Store, stream: str, block_idx: int) -> None:
    block = make_block(block_idx, stream_id=stream)
    store.commit([make_commit(block, num_blocks=block_idx + 1, stream_id=stream)])


def test_a_tenant_is_refused_above_its_quota_and_taken_again_below_the_margin(store: Store) -> None:
    for stream, tenant in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        store.create_stream(make_record(stream, tenant=tenant, settings={"window_blocks": 1}))
    commit_one(store, "a1", 0)
    size = store.stats("a1").num_bytes
    store.upkeep.set_quota("a", Quota(max_bytes=4 * size, release=0.8))
    commit_one(store, "a2", 0)
    commit_one(store, "a2", 1)
    commit_one(store, "a2", 2)
    with pytest.raises(QuotaExceeded, match="tenant 'a'") as told:
        commit_one(store, "a1", 1)
    assert told.value.ids["tenant"] == "a"
    store.commit([make_commit(num_blocks=1, stream_id="a1")])  # a state alone is always taken
    for at in range(6):
        commit_one(store, "b1", at)
    store.upkeep.set_retention("a2", Retention(max_blocks=2))
    store.upkeep.housekeep()
    with pytest.raises(QuotaExceeded):  # three blocks and one more are below the quota, not below the margin
        commit_one(store, "a1", 1)
    store.delete_stream("a2")
    commit_one(store, "a1", 1)
    commit_one(store, "a1", 2)
    assert store.upkeep.usage.of("a") == store.stats("a1").num_bytes


def test_a_commit_may_be_repeated_at_the_limit_and_one_bad_stream_lifts_no_quota(tmp_path: Path, store: Store) -> None:
    store.create_stream(make_record("a1", tenant="a"))
    store.create_stream(make_record("cam", tenant="a"))
    commit_one(store, "a1", 0)
    commit_one(store, "cam", 0)
    store.upkeep.set_quota("a", Quota(max_bytes=store.stats("a1").num_bytes))
    commit_one(store, "a1", 0)
    put(store, "meta", flipped)
    store.close()
    with Store.open(tmp_path / "data") as again, pytest.raises(QuotaExceeded):
        commit_one(again, "a1", 1)


def test_quotas_survive_reopening(tmp_path: Path, store: Store) -> None:
    store.create_stream(make_record("a1", tenant="a"))
    commit_one(store, "a1", 0)
    store.upkeep.set_quota("a", Quota(max_bytes=10))
    store.close()
    with Store.open(tmp_path / "data") as again:
        with pytest.raises(QuotaExceeded):
            commit_one(again, "a1", 1)
        again.upkeep.set_quota("a", None)
        commit_one(again, "a1", 1)


def test_a_stream_does_not_change_hands(store: Store) -> None:
    store.create_stream(make_record(tenant="a"))
    with pytest.raises(StreamExists, match="tenant"):
        store.create_stream(make_record(tenant="b"))


@pytest.mark.parametrize("fields", [{"max_bytes": -1}, {"max_bytes": 1, "release": 0}, {"max_bytes": 1, "release": 2}])
def test_a_quota_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(InvalidRecord):
        Quota(**fields)  # type: ignore[arg-type]
