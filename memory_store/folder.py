"""The data folder: its manifest, its shards' places, and the lock of the one process that writes.

DIR/manifest.json           {"format": 2, "shards": 1}
DIR/shard-0000/data.mdb     LMDB
DIR/shard-0000/writer.lock  flock held by the writer, whose pid it holds; a dead writer's lock is gone with it
DIR/shard-0000/unsynced     there while durability is relaxed: not all of data.mdb may be on the disk

Format 1 knew one shard, native KV and no retention; all of it reads as format 2, and becomes it when it is written.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType

from xxhash import xxh3_64_intdigest

from memory_store.errors import CorruptRecord, InvalidRecord, StoreLocked, StoreUnavailable, UnsupportedFormat
from memory_store.files import sync_folder, write_file
from memory_store.lmdb_errors import lmdb_errors

FORMAT = 2
READABLE = (1, 2)
MAX_SHARDS = 1024


class WriterLock:
    """Held from construction until `close`; the system frees it when the process dies."""

    def __init__(self, shard: Path) -> None:
        """Raises: StoreLocked naming the pid that holds it; StoreUnavailable."""
        path = shard / "writer.lock"
        with lmdb_errors(shard):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StoreLocked(
                f"{shard.parent} is being written by process {holder}: stop it, or open the store read-only",
                path=str(shard.parent),
                pid=int(holder) if holder.isdigit() else None,
            ) from None
        try:
            with lmdb_errors(shard):
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the lock. Closing again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def prepare(path: Path, *, read_only: bool, shards: int | None) -> list[Path]:
    """The shards' folders inside the data folder, made when writing.

    Args:
        shards: how many a new folder gets (None: one); a folder that exists must have as many.

    Raises:
        UnsupportedFormat: made by a newer version. CorruptRecord: the manifest is not one.
        InvalidRecord: another number of shards than there are.
        StoreUnavailable: missing (when reading only), or not a folder that can be used.
    """
    found = _read_manifest(path)
    if found is not None:
        count = _checked_manifest(found, path)
        if shards not in (None, count):
            raise InvalidRecord(
                f"{path} has {count} shard(s), not {shards}: their number is fixed when the folder is made",
                path=str(path),
            )
    elif read_only:
        raise StoreUnavailable(f"{path} holds no store: check the path, or ingest something into it", path=str(path))
    else:
        there = len(list(path.glob("shard-[0-9][0-9][0-9][0-9]")))  # its making was cut off
        count = max(1, there) if shards is None else shards
        if there > count:
            raise InvalidRecord(f"{path} was begun with {there} shards, not {count}", path=str(path))
        if not 1 <= count <= MAX_SHARDS:
            raise InvalidRecord(f"a store has 1 to {MAX_SHARDS} shards, not {count}", path=str(path))
    places = shard_places(path, count)
    if not read_only:
        with lmdb_errors(path):
            for place in places:
                place.mkdir(parents=True, exist_ok=True)
    return places


def shard_places(path: Path, count: int) -> list[Path]:
    """The folders of a data folder's shards."""
    return [path / f"shard-{number:04d}" for number in range(count)]


def shard_of(name: str, count: int) -> int:
    """Where a stream is kept: the shard whose hash with the name is greatest (rendezvous hashing)."""
    return max(range(count), key=lambda number: xxh3_64_intdigest(f"{number:04d}/{name}".encode()))


def write_manifest(path: Path, shards: list[Path]) -> None:
    """Write the manifest, or bring an older one up to date; with the writer's locks held, once LMDB could be opened."""
    manifest = {"format": FORMAT, "shards": len(shards)}
    with lmdb_errors(path):
        if _read_manifest(path) == manifest:
            return
        write_file(path / "manifest.json", [json.dumps(manifest).encode()])
        for folder in (*shards, path, path.parent):
            sync_folder(folder)


def _read_manifest(path: Path) -> object:
    try:
        found = json.loads((path / "manifest.json").read_bytes())
        return {} if found is None else found
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise CorruptRecord(f"{path}/manifest.json is not JSON: restore it from a copy", path=str(path)) from None
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read ({error.strerror}): check the path", path=str(path)) from None


def _checked_manifest(found: object, path: Path) -> int:
    """The number of shards."""
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise CorruptRecord(f"{path}/manifest.json names no format: restore it from a copy", path=str(path))
    if found["format"] not in READABLE:
        raise UnsupportedFormat(
            f"{path} has format {found['format']}, this version reads formats {READABLE[0]} to {READABLE[-1]}: use the "
            "version that made it",
            path=str(path),
            format=found["format"],
        )
    count = found.get("shards")
    there = len(list(path.glob("shard-[0-9][0-9][0-9][0-9]")))
    if not isinstance(count, int) or not 1 <= count <= MAX_SHARDS or count < there:
        # A changed number would look for streams in the wrong place.
        raise CorruptRecord(
            f"{path}/manifest.json speaks of {count} shard(s), and there are {there}: restore it from a copy",
            path=str(path),
        )
    if there < count:
        raise StoreUnavailable(
            f"{path} has {there} of its {count} shard folder(s): put the missing back, or restore a snapshot",
            path=str(path),
        )
    return count
