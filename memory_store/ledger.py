"""Small named values beside the streams: books, each of entries by key. Whoever keeps one says what is in it.

table notes    book + NUL + key -> sealed bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from memory_store import folder
from memory_store.blobs import Snapshot
from memory_store.codec import Buffer
from memory_store.errors import CorruptRecord, InvalidRecord
from memory_store.shard import Shard
from memory_store.values import decode, seal

_TABLE = "notes"
_KIND = b"NOTE"
_MAX_BYTES = 480


class Ledger:
    """Of one open store; see `Store.ledger`. Thread-safe. A book's entries are in one shard, in order of their keys.

    Raises:
        InvalidRecord: book and key are empty, hold NUL, or have more than 480 bytes together. CorruptRecord, StoreFull.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards

    def put(self, book: str, entries: Mapping[str, bytes | None]) -> None:
        """Write all of them or none, in place of what was there; None removes."""
        keyed = {_key(book, key): payload for key, payload in entries.items()}

        def write(snapshot: Snapshot) -> None:
            for key, payload in keyed.items():
                if payload is None:
                    snapshot.delete(_TABLE, key)
                else:
                    snapshot.put(_TABLE, key, seal(_KIND, key, payload))

        self._shard(book).writer.write(write)

    def claim(self, book: str, key: str, payload: bytes) -> bytes:
        """What is there; `payload`, where nothing was before. One of several who claim at once finds its own."""
        name = _key(book, key)

        def write(snapshot: Snapshot) -> bytes:
            found = snapshot.get(_TABLE, name)
            if found is not None:
                return _payload(name, found)
            snapshot.put(_TABLE, name, seal(_KIND, name, payload))
            return payload

        return self._shard(book).writer.write(write)

    def get(self, book: str, key: str) -> bytes | None:
        """None: there is no such entry."""
        name = _key(book, key)
        with self._shard(book).blobs.read() as snapshot:
            found = snapshot.get(_TABLE, name)
            return None if found is None else _payload(name, found)

    def entries(self, book: str) -> dict[str, bytes]:
        """All of a book, by key."""
        prefix = _key(book, "")
        with self._shard(book).blobs.read() as snapshot:
            return {key[len(prefix) :].decode(): _payload(key, value) for key, value in snapshot.scan(_TABLE, prefix)}

    def _shard(self, book: str) -> Shard:
        return self._shards[folder.shard_of(book, len(self._shards))]


def bad_notes(snapshot: Snapshot) -> list[bytes]:
    """Keys of entries that fail their checksum."""
    return [key for key, value in snapshot.scan(_TABLE, b"") if not _is_whole(key, value)]


def remove_bad_notes(snapshot: Snapshot) -> str:
    """Those there are in this very transaction."""
    for key in bad_notes(snapshot):
        snapshot.delete(_TABLE, key)
    return "removed"


def _key(book: str, key: str) -> bytes:
    name = f"{book}\0{key}".encode()
    if not book or "\0" in book + key or len(name) > _MAX_BYTES:
        raise InvalidRecord(f"entry {key!r} of book {book!r}: give 1 to {_MAX_BYTES} bytes without NUL", key=key)
    return name


def _payload(key: bytes, value: Buffer) -> bytes:
    read: Callable[[memoryview], bytes] = bytes
    return decode(_KIND, key, value, read)


def _is_whole(key: bytes, value: Buffer) -> bool:
    try:
        _payload(key, value)
    except CorruptRecord:
        return False
    return True
