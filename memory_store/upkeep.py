"""Upkeep of a data folder: retention, housekeeping on a timer, verification, online snapshots, totals."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from memory_store import catalog, folder, retention
from memory_store.blobs import Snapshot
from memory_store.errors import CorruptRecord, InvalidRecord, StoreUnavailable
from memory_store.files import sync_folder
from memory_store.lmdb_errors import lmdb_errors
from memory_store.quotas import Quota, Usage, all_quotas, put_quota
from memory_store.records import Retention
from memory_store.shard import Housekept, Shard
from memory_store.verify import Progress, Verifier, VerifyReport

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """Totals of a data folder.

    Args:
        streams, blocks, tokens: kept; absent: blocks without their KV; deleted: blocks that retention deleted.
        live_bytes: of what is kept, file_bytes: of the data files, used_bytes: of their pages in use.
        transactions: committed since the folder was made, readers: slots taken, both over all shards.
    """

    shards: int
    streams: int
    blocks: int
    tokens: int
    absent: int
    deleted: int
    live_bytes: int
    file_bytes: int
    used_bytes: int
    readers: int
    transactions: int


class Upkeep:
    """Of one open store; see `Store.upkeep`.

    Attributes:
        usage: what tenants with quotas hold.
    """

    def __init__(
        self, path: Path, shards: Sequence[Shard], clock: Callable[[], float], afterwards: Callable[[], object]
    ) -> None:
        """
        Args:
            afterwards: called after each round of housekeeping on the timer.
        """
        self._path, self._shards, self._clock, self._afterwards = path, shards, clock, afterwards
        self.usage = Usage()
        self._woken = threading.Condition()
        self._wanted = self._stopped = False
        self._timer: threading.Thread | None = None

    def set_retention(self, stream_id: str, policy: Retention) -> None:
        """How much of the stream is kept from now on; commits and `housekeep` see to it. Raises: StreamNotFound."""

        def put(snapshot: Snapshot) -> None:
            retention.put_policy(snapshot, catalog.get_entry(snapshot, stream_id), policy)

        self._shard(stream_id).writer.write(put)

    def get_retention(self, stream_id: str) -> Retention | None:
        """None where all is kept. Raises: StreamNotFound, CorruptRecord."""
        with self._shard(stream_id).blobs.read() as snapshot:
            return retention.get_policy(snapshot, catalog.get_entry(snapshot, stream_id))

    def set_quota(self, tenant: str, quota: Quota | None) -> None:
        """How much the tenant's streams may hold together; None: as much as there is room."""
        self._shards[0].writer.write(lambda snapshot: put_quota(snapshot, tenant, quota))
        self.count_usage()

    def quotas(self) -> dict[str, Quota]:
        """By tenant. Raises: CorruptRecord."""
        with self._shards[0].blobs.read() as snapshot:
            return all_quotas(snapshot)

    def count_usage(self) -> None:
        """See what tenants hold, anew. What cannot be read is not counted: reading it tells."""
        with contextlib.suppress(CorruptRecord), contextlib.ExitStack() as stack:
            quotas = self.quotas()
            snapshots = [stack.enter_context(shard.blobs.read()) for shard in self._shards] if quotas else []
            self.usage.load(snapshots, quotas)

    def housekeep(self) -> Housekept:
        """Let go what retention says, remove what deleted streams left and sessions that expired, in short steps.

        Slots of readers that died are cleared, too: until then the pages they saw cannot be reused.

        Raises:
            StoreFull, CorruptRecord.
        """
        done = [shard.housekeep(self._clock()) for shard in self._shards]
        self.count_usage()
        return Housekept(
            deleted_blocks=sum(own.deleted_blocks for own in done), aged_blocks=sum(own.aged_blocks for own in done)
        )

    def start(self, every_s: float) -> None:
        """Housekeep in a thread, now and then and when there is something to remove, until the store is closed."""
        if self._timer is None:
            self._timer = threading.Thread(target=self._run, args=(every_s,), name="housekeeper", daemon=True)
            self._timer.start()

    def _run(self, every_s: float) -> None:
        while True:
            with self._woken:
                self._woken.wait_for(lambda: self._wanted or self._stopped, every_s)
                self._wanted = False
                if self._stopped:
                    return
            try:
                self.housekeep()
                self._afterwards()
            except Exception:  # the next round comes all the same
                _LOG.warning("housekeeping of %s failed", self._path, exc_info=True)

    def wake(self) -> None:
        """Housekeep soon, if a thread does."""
        with self._woken:
            self._wanted = True
            self._woken.notify()

    def stop(self) -> None:
        """End the thread, waiting for what it does. Stopping again does nothing."""
        with self._woken:
            self._stopped = True
            self._woken.notify()
        if self._timer is not None:
            self._timer.join()

    def verify(self, *, repair: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Read everything, and check it against its checksums and totals; others may read and write meanwhile.

        Args:
            repair: mend what can be mended (needs a store opened for writing): KV that fails is quarantined, so that
                its block stays as a summary; a summary that fails becomes blank; thumbnails that fail, and values
                that belong to nothing, are removed; totals are counted anew. What tells its tokens no more goes as a
                whole.
            progress: called now and then with blocks done, of how many, and the bytes read.

        Raises:
            StoreUnavailable: repair of a store opened read-only.
        """
        reports = []
        for shard in self._shards:
            if repair and shard.lock is None:
                raise StoreUnavailable(f"the store at {self._path} was opened read-only: open it for writing to repair")
            verifier = Verifier(shard.blobs, shard.writer if repair else None, progress)
            reports.append(verifier.run())
            if repair:
                shard.indexes.clear()
            if repair and not any(found.what == "database" for found in reports[-1].findings):
                shard.blobs.settle()
        return VerifyReport(
            streams=sum(report.streams for report in reports),
            blocks=sum(report.blocks for report in reports),
            num_bytes=sum(report.num_bytes for report in reports),
            findings=tuple(finding for report in reports for finding in report.findings),
        )

    def stats(self) -> StoreStats:
        """Raises: CorruptRecord."""
        heads = []
        for shard in self._shards:
            with shard.blobs.read() as snapshot:
                heads += [catalog.get_head(snapshot, entry) for entry in catalog.all_entries(snapshot)]
        totals = [head.stats for head in heads if head]
        usage = [shard.blobs.usage() for shard in self._shards]
        return StoreStats(
            shards=len(self._shards),
            streams=len(heads),
            blocks=sum(own.num_blocks - own.num_deleted for own in totals),
            tokens=sum(own.num_tokens for own in totals),
            absent=sum(own.num_absent for own in totals),
            deleted=sum(own.num_deleted for own in totals),
            live_bytes=sum(own.num_bytes for own in totals),
            file_bytes=sum(own["file_bytes"] for own in usage),
            used_bytes=sum(own["used_bytes"] for own in usage),
            readers=sum(own["readers"] for own in usage),
            transactions=sum(own["transactions"] for own in usage),
        )

    def snapshot(self, target: Path) -> None:
        """Write a compact copy of the data folder to `target` while the store is written; each shard as of one commit.

        The folder appears under its name once it is whole and synced. It is a data folder like any other.

        Raises:
            InvalidRecord: the target exists and is not empty. StoreFull, StoreUnavailable.
        """
        target = target.absolute()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InvalidRecord(f"{target} exists and is not empty: name a new folder", path=str(target))
        with lmdb_errors(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
                draft = Path(beside) / "draft"
                places = folder.shard_places(draft, len(self._shards))
                for place, shard in zip(places, self._shards, strict=True):
                    place.mkdir(parents=True)
                    shard.blobs.copy_to(place)
                folder.write_manifest(draft, places)
                draft.rename(target)
            sync_folder(target.parent)

    def _shard(self, stream_id: str) -> Shard:
        return self._shards[folder.shard_of(stream_id, len(self._shards))]
