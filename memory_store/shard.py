"""One shard of a store: an LMDB environment with its one writer, and the indexes derived from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memory_store import committing
from memory_store.blobs import Blobs, Snapshot
from memory_store.durability import Durability
from memory_store.folder import WriterLock
from memory_store.group import GroupWriter
from memory_store.index import Indexes
from memory_store.records import Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Opened for reading, or for writing with the lock held."""

    blobs: Blobs
    writer: GroupWriter
    indexes: Indexes
    lock: WriterLock | None

    @classmethod
    def open(cls, place: Path, *, read_only: bool, map_size: int, durability: Durability) -> Shard:
        """Raises: StoreLocked, StoreUnavailable, CorruptRecord."""
        lock = None if read_only else WriterLock(place)
        try:
            blobs = Blobs(place, read_only=read_only, map_size=map_size, durability=durability)
        except BaseException:
            if lock:
                lock.close()
            raise
        return cls(blobs=blobs, writer=GroupWriter(blobs), indexes=Indexes(), lock=lock)

    def commit(self, commits: Sequence[Commit]) -> None:
        """All of them or none; see `Store.commit`."""

        def apply(snapshot: Snapshot) -> None:
            for commit in commits:
                committing.apply_commit(snapshot, commit)

        self.writer.write(apply, sum(block.kv.nbytes for commit in commits for block in commit.blocks))

    def close(self) -> None:
        """Wait for calls under way and give the shard up. Closing again does nothing."""
        self.blobs.close()
        if self.lock:
            self.lock.close()
