"""The LMDB environment of one shard: named tables, transactions, growth of the map.

A key is the stream's number (u32) followed by the block's (u32), big-endian, so that a stream's blocks lie side by
side in order. How durable a write is on return, `Durability` says. LMDB refuses to be opened twice in a process and
must not cross a fork.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import lmdb

from memory_store.codec import Buffer
from memory_store.durability import SYNC_EVERY_S, Durability, clear_unsynced, mark_unsynced
from memory_store.errors import CorruptRecord, StoreUnavailable
from memory_store.files import sync_folder
from memory_store.gate import Gate
from memory_store.lmdb_errors import lmdb_errors

T = TypeVar("T")

TABLES = (
    "meta", "streams", "blocks", "summaries", "states", "thumbnails", "turns", "ages", "tokens", "absent", "policies",
    "doomed", "notes",
)  # fmt: skip
_MAX_READERS = 1022


class Snapshot:
    """A transaction over the tables. The memory views it gives are valid until it ends."""

    _leave: Callable[[], None] | None = None  # `__del__` also meets one whose making was interrupted

    def __init__(
        self,
        env: lmdb.Environment,
        txn: lmdb.Transaction[memoryview],
        tables: dict[str, lmdb._Database],
        gate: Gate,
        leave: Callable[[], None] | None,
    ) -> None:
        self._env = env
        self._gate = gate
        self._txn = txn
        self._tables = tables
        self._leave = leave

    def get(self, table: str, key: bytes) -> memoryview | None:
        return self._txn.get(key, db=self._tables[table]) if table in self._tables else None

    def scan(self, table: str, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, memoryview]]:
        """Entries whose key begins with `prefix`, in key order, from `prefix + start` on."""
        if table not in self._tables:  # an older store, opened read-only
            return
        with self._txn.cursor(self._tables[table]) as cursor:
            found = cursor.set_range(prefix + start) if prefix + start else cursor.first()
            while found and bytes(key := cursor.key()).startswith(prefix):
                yield bytes(key), cursor.value()
                found = cursor.next()

    def put(self, table: str, key: bytes, value: Buffer) -> None:
        self._txn.put(key, value, db=self._tables[table])

    def count(self, table: str) -> int:
        """Entries, as the table itself says."""
        return int(self._txn.stat(self._tables[table])["entries"]) if table in self._tables else 0

    def delete(self, table: str, key: bytes) -> bool:
        return self._txn.delete(key, db=self._tables[table])

    @contextlib.contextmanager
    def nested(self) -> Iterator[Snapshot]:
        """A writing transaction within this writing one: kept when the `with` block ends, undone when it raises."""
        txn = self._env.begin(parent=self._txn, write=True, buffers=True)
        try:
            yield Snapshot(self._env, txn, self._tables, self._gate, None)
            txn.commit()
        except BaseException:
            with self._gate.paused():
                txn.abort()
            raise

    def close(self) -> None:
        """End the transaction: committed writes stay, others are undone. Closing again does nothing."""
        leave, self._leave = self._leave, None
        if leave:
            self._txn.abort()
            leave()

    def __del__(self) -> None:
        self.close()


class Blobs:
    """One LMDB environment. Thread-safe; one writing transaction at a time."""

    def __init__(self, path: Path, *, read_only: bool, map_size: int, durability: Durability) -> None:
        """Raises: StoreUnavailable, StoreLocked (open in this process already), CorruptRecord."""
        self._path = path
        self._read_only = read_only
        self._pid = os.getpid()
        self._gate = Gate()
        self._writing = threading.Lock()
        relaxed = durability is Durability.RELAXED and not read_only
        if relaxed:
            mark_unsynced(path)
        with lmdb_errors(path):
            self._env = lmdb.open(
                str(path), map_size=map_size, max_dbs=len(TABLES), max_readers=_MAX_READERS, readonly=read_only,
                create=not read_only, metasync=durability is Durability.POWER_SAFE, sync=not relaxed, writemap=False,
                readahead=True,
            )  # fmt: skip
            try:
                _check_size(self._env, path)
                self._tables = _open_tables(self._env, read_only)
                self._env.reader_check()
                self._syncer = _Syncer(self._env, path) if relaxed else None
            except BaseException:
                self._env.close()
                raise

    def snapshot(self) -> Snapshot:
        """Begin a reading transaction; end it soon, for the pages it sees cannot be reused meanwhile.

        Raises:
            StoreUnavailable: closed, inherited through a fork, or too many readers.
        """
        self._check_process()
        while True:
            leave = self._gate.enter()
            try:
                with lmdb_errors(self._path, passing=lmdb.MapResizedError):
                    return Snapshot(self._env, self._env.begin(buffers=True), self._tables, self._gate, leave)
            except lmdb.MapResizedError:
                leave()
                self._resize(0)
            except BaseException:
                leave()
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A snapshot that ends with the `with` block."""
        snapshot = self.snapshot()
        try:
            with lmdb_errors(self._path):
                yield snapshot
        finally:
            snapshot.close()

    def write(self, change: Callable[[Snapshot], T]) -> T:
        """Run `change` in one transaction: all of it is durable on return, or none of it is there.

        `change` runs again, on a fresh transaction, when the map had to grow.

        Raises:
            StoreFull, StoreUnavailable: nothing was written; the store stays usable.
        """
        self._check_process()
        if self._read_only:
            raise StoreUnavailable(f"the store at {self._path.parent} was opened read-only: open it for writing")
        with self._writing:
            while True:
                try:
                    with lmdb_errors(self._path, passing=lmdb.MapFullError):
                        return self._write_once(change)
                except lmdb.MapFullError:
                    self._resize(2 * self._env.info()["map_size"])

    def _write_once(self, change: Callable[[Snapshot], T]) -> T:
        leave = self._gate.enter()
        try:
            self._env.reader_check()
            txn = self._env.begin(write=True, buffers=True)
        except BaseException:
            leave()
            raise
        snapshot = Snapshot(self._env, txn, self._tables, self._gate, leave)
        try:
            result = change(snapshot)
            txn.commit()
        except BaseException:
            with self._gate.paused():
                snapshot.close()
            raise
        snapshot.close()
        return result

    def check_readers(self) -> int:
        """Clear the slots of readers that have died; how many there were. Old pages are kept for them until then."""
        self._check_process()
        with lmdb_errors(self._path):
            return self._env.reader_check()

    def settle(self) -> None:
        """Sync, and take back what says that not all is synced."""
        with lmdb_errors(self._path):
            self._env.sync(True)
            if self._syncer is None:
                clear_unsynced(self._path)

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Raises LMDB's errors as this package's, of what is done with a snapshot outside `read` and `write`."""
        return lmdb_errors(self._path)

    def copy_to(self, folder: Path) -> None:
        """Write a compact copy of the newest commit into an empty folder, while others go on writing; synced."""
        self._check_process()
        with lmdb_errors(folder):
            self._env.copy(str(folder), compact=True)
            with (folder / "data.mdb").open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(folder)

    def usage(self) -> dict[str, int]:
        """Bytes of the file, of its pages in use and of the map; readers and the transaction number."""
        self._check_process()
        with lmdb_errors(self._path):
            info, page = self._env.info(), self._env.stat()["psize"]
            with self._env.begin() as txn:
                stats = [txn.stat(db) for db in self._tables.values()]
            pages = sum(own["branch_pages"] + own["leaf_pages"] + own["overflow_pages"] for own in stats)
            return {
                "file_bytes": (self._path / "data.mdb").stat().st_size,
                "used_bytes": pages * page,
                "map_bytes": info["map_size"],
                "readers": info["num_readers"],
                "transactions": info["last_txnid"],
            }

    def _resize(self, map_size: int) -> None:
        with self._gate.alone(), lmdb_errors(self._path):
            self._env.set_mapsize(map_size)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StoreUnavailable("the store was opened before a fork: open it again in this process", pid=self._pid)

    def close(self) -> None:
        """Wait for open transactions, then close. Closing again does nothing.

        Raises:
            StoreUnavailable: transactions stay open.
        """
        with self._gate.alone(close=True):
            if self._syncer:
                self._syncer.close()
            self._env.close()


def _check_size(env: lmdb.Environment, path: Path) -> None:
    """Raises: CorruptRecord: pages in use lie beyond the file's end, where touching them would kill the process."""
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if (path / "data.mdb").stat().st_size < needed:
        raise CorruptRecord(f"the database in {path} is cut short: restore it or ingest again", path=str(path))


def _open_tables(env: lmdb.Environment, read_only: bool) -> dict[str, lmdb._Database]:
    """All of them when writing; when reading, those there are."""
    tables = {}
    for name in TABLES:
        with contextlib.suppress(lmdb.NotFoundError) if read_only else contextlib.nullcontext():
            tables[name] = env.open_db(name.encode(), create=not read_only)
    return tables


class _Syncer:
    """Syncs a `relaxed` environment now and then, and takes the marker back that says it is not always synced."""

    def __init__(self, env: lmdb.Environment, shard: Path) -> None:
        self._env, self._shard = env, shard
        self._failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lmdb-sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(SYNC_EVERY_S):
            try:
                self._env.sync(True)
            except lmdb.Error:
                self._failed = True  # the system tells of a failure once; what it was about may never be written

    def close(self) -> None:
        """Sync for the last time. Closing again does nothing."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            with lmdb_errors(self._shard):
                self._env.sync(True)
                if not self._failed:
                    clear_unsynced(self._shard)
