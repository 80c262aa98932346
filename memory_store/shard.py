"""One shard of a store: an LMDB environment with its one writer, and the indexes derived from it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from memory_store import catalog, committing, mending, quotas, retention, sessions
from memory_store.blobs import Blobs, Snapshot
from memory_store.durability import Durability, check_synced
from memory_store.errors import CorruptRecord, StoreError
from memory_store.folder import WriterLock
from memory_store.group import GroupWriter
from memory_store.hot import HotBlocks
from memory_store.index import Indexes
from memory_store.known import Known
from memory_store.records import Commit

#: Values of deleted streams that one transaction removes at most.
_REMOVED_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Housekept:
    """What housekeeping let go: whole blocks, and blocks' KV."""

    deleted_blocks: int
    aged_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Opened for reading, or for writing with the lock held."""

    blobs: Blobs
    writer: GroupWriter
    indexes: Indexes
    hot: HotBlocks
    known: Known
    lock: WriterLock | None

    @classmethod
    def open(
        cls,
        place: Path,
        *,
        read_only: bool,
        map_size: int,
        durability: Durability,
        accept_unsynced: bool,
        hot_bytes: int,
    ) -> Shard:
        """Raises: StoreLocked, StoreUnavailable, CorruptRecord."""
        if not accept_unsynced:
            check_synced(place)
        lock = None if read_only else WriterLock(place)
        try:
            blobs = Blobs(place, read_only=read_only, map_size=map_size, durability=durability)
            if not (read_only or accept_unsynced):
                blobs.settle()  # what a relaxed writer left when it was killed
        except BaseException:
            if lock:
                lock.close()
            raise
        return cls(
            blobs=blobs,
            writer=GroupWriter(blobs),
            indexes=Indexes(),
            hot=HotBlocks(hot_bytes),
            known=Known(),
            lock=lock,
        )

    def commit(self, commits: Sequence[Commit], now_s: float) -> dict[str, quotas.Held]:
        """All of them or none; see `Store.commit`. `now_s`: Unix time. Returns each stream's tenant and bytes held."""

        def apply(snapshot: Snapshot) -> dict[str, quotas.Held]:
            for commit in commits:
                committing.apply_commit(snapshot, commit, now_s)
            return quotas.held_by(snapshot, {commit.stream_id for commit in commits})

        return self.writer.write(apply, sum(block.kv.nbytes for commit in commits for block in commit.blocks))

    def quarantine(self, stream_id: str, block_idx: int) -> None:
        """Keep only the summary of a block whose KV failed, if it fails again; nothing where that cannot be written."""
        if self.lock is not None:
            with contextlib.suppress(StoreError):
                self.writer.write(partial(mending.quarantine_failing, stream_id=stream_id, block_idx=block_idx))

    def housekeep(self, now_s: float) -> Housekept:
        """See `Upkeep.housekeep`."""
        self.blobs.check_readers()
        while self.writer.write(partial(catalog.remove_doomed, limit=_REMOVED_AT_ONCE)):
            pass
        self.writer.write(partial(sessions.sweep, now_s=now_s))
        with self.blobs.read() as snapshot:
            entries = [e for e in catalog.all_entries(snapshot) if snapshot.get("policies", e.key) is not None]
        kept = [self._let_go(entry, now_s) for entry in entries]
        return Housekept(
            deleted_blocks=sum(own.deleted_blocks for own in kept), aged_blocks=sum(own.aged_blocks for own in kept)
        )

    def _let_go(self, entry: catalog.StreamEntry, now_s: float) -> Housekept:
        """What one stream's retention says, in short steps; of a stream that fails its checksums, nothing more."""
        deleted = aged = 0
        with contextlib.suppress(CorruptRecord):
            while step := self.writer.write(partial(_let_go, entry=entry, now_s=now_s)):
                deleted, aged = deleted + len(step.deleted), aged + len(step.aged)
                if not step.more:
                    break
        return Housekept(deleted_blocks=deleted, aged_blocks=aged)

    def close(self) -> None:
        """Wait for calls under way and give the shard up. Closing again does nothing."""
        self.blobs.close()
        if self.lock:
            self.lock.close()


def _let_go(snapshot: Snapshot, entry: catalog.StreamEntry, now_s: float) -> retention.LetGo | None:
    """One step of a stream's retention, as it now is."""
    current = catalog.find_entry(snapshot, entry.record.stream_id)
    head, policy = (catalog.get_head(snapshot, entry), retention.get_policy(snapshot, entry))
    if current is None or current.number != entry.number or head is None or policy is None:
        return None
    step = retention.enforce(snapshot, entry, head, policy, now_s)
    catalog.put_head(snapshot, entry, step.head)
    return step
