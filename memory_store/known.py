"""Stream records and totals decoded before: a search over thousands of streams decodes those that changed since."""

from __future__ import annotations

from memory_store import catalog
from memory_store.blobs import Snapshot
from memory_store.catalog import StreamEntry, StreamHead


class Known:
    """Of one shard. What is stored is compared byte by byte, so nothing stale is ever given. Thread-safe."""

    def __init__(self) -> None:
        self._entries: dict[bytes, tuple[bytes, StreamEntry]] = {}
        self._heads: dict[int, tuple[bytes, StreamHead]] = {}

    def entries(self, snapshot: Snapshot) -> list[StreamEntry]:
        """As `catalog.all_entries`."""
        before, now = self._entries, {}
        for key, value in snapshot.scan("streams", b""):
            known = before.get(key)
            if known is None or known[0] != value:
                known = bytes(value), catalog.decode_entry(key, value)
            now[key] = known
        catalog.check_streams(snapshot, len(now))
        self._entries = now
        entries = [entry for _, entry in now.values()]
        if len(self._heads) > len(entries):
            there = {entry.number for entry in entries}
            self._heads = {number: own for number, own in list(self._heads.items()) if number in there}
        return entries

    def head(self, snapshot: Snapshot, entry: StreamEntry) -> StreamHead | None:
        """As `catalog.get_head`."""
        value = snapshot.get("meta", b"head" + entry.key)
        known = self._heads.get(entry.number)
        if value is not None and known is not None and known[0] == value:
            return known[1]
        head = catalog.get_head(snapshot, entry)
        if value is not None and head is not None:
            self._heads[entry.number] = bytes(value), head
        return head
