"""The store: streams with their blocks, summaries and states on disk, searched and read back verified.

    create_stream -> commit, commit, ... -> search -> reader -> KV
                     one durable transaction each      short, zero-copy

`Store` is the face of a data folder, whose streams are spread over its shards by their names.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np

from memory_store import catalog, committing, folder, lookup, sessions
from memory_store.allocator import keep_freed_memory
from memory_store.blobs import Snapshot
from memory_store.durability import Durability
from memory_store.errors import CorruptRecord, StoreError, StoreUnavailable
from memory_store.everywhere import LibrarySearch
from memory_store.fetch import BlockReader
from memory_store.hot import HotStats
from memory_store.index import check_queries
from memory_store.ledger import Ledger
from memory_store.quotas import Held
from memory_store.records import Array, Commit, Hit, Retention, StreamRecord, StreamState, StreamStats, TimeRange
from memory_store.shard import Shard
from memory_store.upkeep import Upkeep

#: Between two rounds of housekeeping: retention by age, readers that died, sessions that expired.
HOUSEKEEP_EVERY_S = 60.0

#: Address space, not disk: the file grows as it is written, and the map doubles when this is not enough.
MAP_SIZE = 64 << 30


class Store:
    """Thread-safe. One process writes a folder; others may read it (`read_only=True`). Close it or use `with`.

    Attributes:
        library: search over all streams at once.
        ledger: small named values that are no stream's.
        upkeep: retention, quotas, verification, snapshots, totals.
    """

    def __init__(self, path: Path, shards: Sequence[Shard], clock: Callable[[], float]) -> None:
        self._shards = tuple(shards)
        self._clock = clock
        self._closed = False
        self.library = LibrarySearch(shards, folder.shard_places(path, len(shards)))
        self.ledger = Ledger(shards)
        self.upkeep = Upkeep(path, shards, clock, self.library.save)
        self._readers: weakref.WeakSet[BlockReader] = weakref.WeakSet()
        self._committing = ThreadPoolExecutor(len(shards), thread_name_prefix="commit") if len(shards) > 1 else None

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        read_only: bool = False,
        shards: int | None = None,
        durability: Durability = Durability.POWER_SAFE,
        accept_unsynced: bool = False,
        map_size: int = MAP_SIZE,
        hot_bytes: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> Store:
        """Open the data folder, making it when writing.

        Args:
            read_only: take no lock; another process may write meanwhile.
            shards: LMDB environments of a new folder, each with its own writer; None: one, or as many as there are.
            durability: what a crash can cost.
            accept_unsynced: open what a power cut may have damaged, to verify it; `Durability.RELAXED` has more.
            map_size: bytes of address space of a shard to begin with.
            hot_bytes: RAM for block values that need not be verified again, in equal parts for the shards; without it
                the system's page cache serves alone.
            clock: Unix time, by which expired sessions are swept.

        Raises:
            StoreLocked: another process writes it (the message names its pid), or this one has it open.
            UnsupportedFormat: made by a newer version. InvalidRecord: it has another number of shards.
            StoreUnavailable: missing, or may not be read or written. CorruptRecord: it is damaged.
        """
        if not read_only:
            keep_freed_memory()
        path = Path(path).absolute()
        places = folder.prepare(path, read_only=read_only, shards=shards)
        opened: list[Shard] = []
        try:
            for place in places:
                shard = Shard.open(
                    place,
                    read_only=read_only,
                    map_size=map_size,
                    durability=durability,
                    accept_unsynced=accept_unsynced,
                    hot_bytes=hot_bytes // len(places),
                )
                opened.append(shard)
            if not read_only:
                folder.write_manifest(path, places)
        except BaseException:
            for shard in opened:
                shard.close()
            raise
        store = cls(path, opened, clock)
        store.upkeep.count_usage()
        if not read_only:
            store.upkeep.start(HOUSEKEEP_EVERY_S)
        return store

    def create_stream(self, record: StreamRecord) -> StreamRecord:
        """The stored record: `record` itself, or the one there is with equal fingerprint and settings.

        Raises:
            StreamExists: naming the immutable fields that differ. InvalidRecord: settings that are not JSON.
        """
        plain = catalog.plain_record(record)

        def create(snapshot: Snapshot) -> StreamRecord:
            entry = catalog.find_entry(snapshot, plain.stream_id) or catalog.add_entry(snapshot, plain)
            committing.check_same_stream(plain, entry.record)
            return entry.record

        stored = self._shard(record.stream_id).writer.write(create)
        self.upkeep.usage.note({stored.stream_id: Held(stored.tenant, 0, 0)}, new=True)
        return stored

    def get_stream(self, stream_id: str) -> StreamRecord:
        """Raises: StreamNotFound."""
        with self._shard(stream_id).blobs.read() as snapshot:
            return catalog.get_entry(snapshot, stream_id).record

    def relabel(self, stream_id: str, labels: Mapping[str, str]) -> StreamRecord:
        """The stream with these labels instead of its own. Raises: StreamNotFound, InvalidRecord."""
        shard = self._shard(stream_id)
        return shard.writer.write(
            lambda snapshot: catalog.relabel(snapshot, catalog.get_entry(snapshot, stream_id), labels).record
        )

    def list_streams(self) -> list[StreamRecord]:
        """All streams in order of stream_id."""
        records = []
        for shard in self._shards:
            with shard.blobs.read() as snapshot:
                records += [entry.record for entry in shard.known.entries(snapshot)]
        return sorted(records, key=lambda record: record.stream_id)

    def set_retention(self, stream_id: str, policy: Retention) -> None:
        """How much of the stream is kept from now on (`upkeep.set_retention`). Raises: StreamNotFound."""
        self.upkeep.set_retention(stream_id, policy)

    def delete_stream(self, stream_id: str) -> None:
        """Delete the stream with all that is kept of it; its space comes back soon, in the background.

        Raises:
            StreamNotFound
        """
        shard = self._shard(stream_id)

        def delete(snapshot: Snapshot) -> int:
            entry = catalog.get_entry(snapshot, stream_id)
            catalog.remove_entry(snapshot, entry)
            sessions.remove_turns_of_stream(snapshot, stream_id)
            return entry.number

        number = shard.writer.write(delete)
        shard.indexes.drop(number)
        shard.hot.drop(number)
        self.upkeep.usage.forget(stream_id)
        self.upkeep.wake()

    def commit(self, commits: Sequence[Commit]) -> None:
        """Write all blocks, summaries, thumbnails and states, those of one shard in one transaction; act on retention.

        On return they are as durable as the store is. A block that is stored already is left as it is when its tokens
        agree, so a commit may be repeated. Commits of other threads share the wait for the disk.

        Raises:
            StreamNotFound; EpochFenced: from an earlier owner of the stream; BlockConflict: stored with other tokens;
            InvalidRecord: a gap in block numbers, a state that counts other blocks than there are, blocks unlike the
            stream's others or going back in time; QuotaExceeded; StoreFull. Nothing is written to that shard then.
        """
        self.upkeep.usage.check(commits)
        of_shard: dict[int, list[Commit]] = {}
        for commit in commits:
            of_shard.setdefault(folder.shard_of(commit.stream_id, len(self._shards)), []).append(commit)
        if self._committing is None or len(of_shard) == 1:
            for number, own in of_shard.items():
                self.upkeep.usage.note(self._shards[number].commit(own, self._clock()))
            return
        if self._closed:
            raise StoreUnavailable("the store is closed: open it again")
        waiting = [self._committing.submit(self._shards[n].commit, own, self._clock()) for n, own in of_shard.items()]
        errors = [future.exception() for future in waiting]
        for future, error in zip(waiting, errors, strict=True):
            if error is None:
                self.upkeep.usage.note(future.result())
        for error in filter(None, errors):
            raise error

    def claim(self, stream_id: str) -> int:
        """Become the stream's owner: the epoch to commit with from now on; commits of earlier owners are refused.

        Raises:
            StreamNotFound, CorruptRecord, StoreFull.
        """
        shard = self._shard(stream_id)
        return shard.writer.write(lambda snapshot: committing.claim(snapshot, catalog.get_entry(snapshot, stream_id)))

    def load_state(self, stream_id: str) -> StreamState | None:
        """The state last committed; its payload is empty while there is only an owner.

        Raises:
            StreamNotFound, CorruptRecord.
        """
        with self._shard(stream_id).blobs.read() as snapshot:
            entry = catalog.get_entry(snapshot, stream_id)
            return committing.get_state(snapshot, entry)

    def stats(self, stream_id: str) -> StreamStats:
        """Totals of the committed blocks; `num_bytes` counts all that is stored of them. Raises: StreamNotFound."""
        with self._shard(stream_id).blobs.read() as snapshot:
            head = catalog.get_head(snapshot, catalog.get_entry(snapshot, stream_id))
            return head.stats if head else StreamStats(num_blocks=0, num_tokens=0, num_bytes=0)

    def times(self, stream_id: str) -> Array:
        """float64 [N, 2]: first and last time of each block, seconds; NaN of a deleted one.

        Raises:
            StreamNotFound, CorruptRecord.
        """
        with self._shard(stream_id).blobs.read() as snapshot:
            entry = catalog.get_entry(snapshot, stream_id)
            head = catalog.get_head(snapshot, entry)
            times = np.full((catalog.num_blocks(head), 2), np.nan)
            for block_idx in itertools.chain(*catalog.live_blocks(head)):
                block = catalog.block_totals(snapshot, entry, block_idx)
                times[block_idx] = block.start_s, block.end_s
            return times

    def blocks_in(self, stream_id: str, time_range: TimeRange) -> range:
        """Numbers from the first to the last block that overlaps the range; deleted ones may lie between.

        Raises:
            StreamNotFound, CorruptRecord.
        """
        with self._shard(stream_id).blobs.read() as snapshot:
            entry = catalog.get_entry(snapshot, stream_id)
            live = catalog.live_blocks(catalog.get_head(snapshot, entry))
            return catalog.overlapping(snapshot, entry, live, time_range)

    def without_kv(self, stream_id: str, block_idxs: Sequence[int]) -> dict[int, str]:
        """Those of the blocks whose KV is not kept, and why: "aged" by retention, or found "corrupt".

        Raises:
            StreamNotFound, BlockNotFound, CorruptRecord.
        """
        with self._shard(stream_id).blobs.read() as snapshot:
            return lookup.without_kv(snapshot, *lookup.checked_blocks(snapshot, stream_id, block_idxs))

    def read_tokens(self, stream_id: str, block_idxs: Sequence[int]) -> list[Array]:
        """Tokens [B] of TOKEN_DTYPE of each block, verified. Raises: StreamNotFound, BlockNotFound, CorruptRecord."""
        with self._shard(stream_id).blobs.read() as snapshot:
            entry, checked = lookup.checked_blocks(snapshot, stream_id, block_idxs)
            return [lookup.block_tokens(snapshot, entry, block_idx) for block_idx in checked]

    def read_thumbnails(self, stream_id: str, block_idxs: Sequence[int]) -> list[bytes | None]:
        """The JPEG of each block, None where it has none. Raises: StreamNotFound, BlockNotFound, CorruptRecord."""
        with self._shard(stream_id).blobs.read() as snapshot:
            entry, checked = lookup.checked_blocks(snapshot, stream_id, block_idxs)
            return [lookup.thumbnail(snapshot, entry, block_idx) for block_idx in checked]

    def reader(self, stream_id: str, block_idxs: Sequence[int], *, fingerprint: str, threads: int = 1) -> BlockReader:
        """Open blocks for reading, in the order given. Their headers are verified here, their KV as it is read.

        Args:
            fingerprint: of the model the KV is for.
            threads: how many the reader's `read` may use.

        Raises:
            StreamNotFound, BlockNotFound, FingerprintMismatch, StoreUnavailable; KvDropped: KV of some is not kept;
            CorruptRecord: what fails is quarantined, and told by KvDropped from then on (read-only: each time anew).
        """
        shard = self._shard(stream_id)
        spoilt = partial(shard.quarantine, stream_id)
        snapshot = shard.blobs.snapshot()
        try:
            with shard.blobs.errors():
                reader = lookup.open_reader(snapshot, stream_id, block_idxs, fingerprint, threads, shard.hot, spoilt)
        except BaseException as error:
            snapshot.close()
            if isinstance(error, CorruptRecord) and (block_idx := error.ids.get("block_idx")) is not None:
                spoilt(cast("int", block_idx))
            raise
        self._readers.add(reader)
        return reader

    def search(
        self, stream_id: str, queries: Array, *, limit: int, blocks: range, per_head: bool = False
    ) -> list[list[Hit]]:
        """The `limit` best of `blocks` (all there are, when fewer), best first, ties by lower block_idx.

        A block's score is the greatest, over its V vectors, of the mean over heads of the cosine between the query's
        head and the vector's. A zero vector scores 0.

        Args:
            queries: [S, H, D], finite.
            blocks: consecutive block numbers; those the stream lacks are left out.
            per_head: rank by the cosine of each head alone.

        Returns:
            One list per summarised layer; `per_head`: one per (layer, head), row-major.

        Raises:
            StreamNotFound, CorruptRecord; InvalidRecord: queries of another shape, or not finite.
        """
        shard = self._shard(stream_id)
        with shard.blobs.read() as snapshot:
            entry = catalog.get_entry(snapshot, stream_id)
            head = catalog.get_head(snapshot, entry)
            shape = head.summary_shape if head else None
            check_queries(queries, shape and (shape[0], shape[2], shape[3]), limit, blocks)
            if head is None:
                return [[] for _ in range(len(queries) * (queries.shape[1] if per_head else 1))]
            index = lookup.loaded_index(shard.indexes, snapshot, entry, head)
        inside = catalog.within(head.live, blocks)
        return index.search(queries, limit=limit, blocks=inside, per_head=per_head)

    def hot_stats(self) -> HotStats:
        """Of the hot tier; every block asked for is a miss where there is none."""
        return HotStats.sum(shard.hot.stats() for shard in self._shards)

    def put_turns(self, session_id: str, payload: bytes, expires_s: float) -> None:
        """Keep a session's turns until `expires_s` (Unix time); sessions that have expired are swept.

        Raises:
            InvalidRecord: an id of no or more than 400 bytes. StoreFull.
        """
        sessions.check_session(session_id, expires_s)
        self._shard(session_id).writer.write(
            lambda snapshot: sessions.put_turns(snapshot, session_id, payload, expires_s, self._clock())
        )

    def get_turns(self, session_id: str, now_s: float) -> bytes | None:
        """The session's turns, None when there are none or they have expired by `now_s`. Raises: CorruptRecord."""
        with self._shard(session_id).blobs.read() as snapshot:
            return sessions.get_turns(snapshot, session_id, now_s)

    def close(self) -> None:
        """Close open readers, wait for calls under way, and give the folder up. Closing again does nothing."""
        for reader in list(self._readers):
            reader.close()
        self._closed = True
        self.upkeep.stop()
        with contextlib.suppress(StoreError):  # derived data: what is not saved is made anew
            self.library.save()
        for shard in self._shards:
            shard.close()
        if self._committing:
            self._committing.shutdown()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _shard(self, name: str) -> Shard:
        """The shard of a stream, or of a session, which is named `stream/...`."""
        return self._shards[folder.shard_of(name.partition("/")[0], len(self._shards))]


def restore(snapshot: str | Path, target: str | Path) -> None:
    """Make a data folder of a snapshot, which stays as it is.

    Raises:
        InvalidRecord: the target exists and is not empty. StoreUnavailable, UnsupportedFormat, CorruptRecord: the
        snapshot cannot be read. StoreFull.
    """
    with Store.open(snapshot, read_only=True) as store:
        store.upkeep.snapshot(Path(target))
