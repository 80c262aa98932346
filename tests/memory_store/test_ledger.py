"""Books of small named values."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_store import Store
from memory_store.blobs import Snapshot
from memory_store.errors import CorruptRecord, InvalidRecord


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data", shards=2) as store:
        yield store


def test_entries_are_read_back_by_book_in_order_of_their_keys(store: Store) -> None:
    store.ledger.put("files", {"b": b"2", "a": b"1", "ä/c": b""})
    store.ledger.put("file", {"a": b"another book's"})
    assert list(store.ledger.entries("files").items()) == [("a", b"1"), ("b", b"2"), ("ä/c", b"")]
    assert (store.ledger.get("files", "b"), store.ledger.get("files", "c")) == (b"2", None)
    assert store.ledger.entries("nothing") == {}


def test_writing_replaces_and_removes(store: Store) -> None:
    store.ledger.put("files", {"a": b"1", "b": b"2"})
    store.ledger.put("files", {"a": b"3", "b": None, "c": None})
    assert store.ledger.entries("files") == {"a": b"3"}


def test_of_several_who_claim_one_finds_its_own(store: Store) -> None:
    found: list[bytes] = []

    def claim(number: int) -> None:
        found.append(store.ledger.claim("contents", "key", b"%d" % number))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16 and len(set(found)) == 1
    assert store.ledger.get("contents", "key") == found[0]


@pytest.mark.parametrize(("book", "key"), [("", "a"), ("a\0b", "c"), ("a", "b\0c"), ("a", "b" * 480)])
def test_names_have_bounds(store: Store, book: str, key: str) -> None:
    with pytest.raises(InvalidRecord, match="480 bytes"):
        store.ledger.put(book, {key: b""})


def test_damage_is_found_and_repaired(store: Store) -> None:
    store.ledger.put("files", {"a": b"1", "b": b"2"})

    def swap(snapshot: Snapshot) -> None:
        snapshot.put("notes", b"files\0a", bytes(snapshot.get("notes", b"files\0b") or b""))

    store.ledger._shard("files").writer.write(swap)
    with pytest.raises(CorruptRecord):
        store.ledger.get("files", "a")
    with pytest.raises(CorruptRecord):
        store.ledger.entries("files")
    assert [finding.what for finding in store.upkeep.verify().findings] == ["note"]
    assert [finding.mended for finding in store.upkeep.verify(repair=True).findings] == ["removed"]
    assert store.ledger.entries("files") == {"b": b"2"}


def test_a_snapshot_has_them(store: Store, tmp_path: Path) -> None:
    store.ledger.put("files", {"a": b"1"})
    store.upkeep.snapshot(tmp_path / "copy")
    with Store.open(tmp_path / "copy", read_only=True) as copy:
        assert copy.ledger.entries("files") == {"a": b"1"}
