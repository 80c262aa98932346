"""The data folder: its manifest, its shards' places, and the lock of the one process that writes.

DIR/manifest.json           {"format": 1, "shards": 1}
DIR/shard-0000/data.mdb     LMDB
DIR/shard-0000/writer.lock  flock held by the writer, whose pid it holds; a dead writer's lock is gone with it
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType

from memory_store.blobs import lmdb_errors
from memory_store.errors import CorruptRecord, StoreLocked, StoreUnavailable, UnsupportedFormat

FORMAT = 1


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


def prepare(path: Path, *, read_only: bool) -> Path:
    """The shard's folder inside the data folder, made when writing.

    Raises:
        UnsupportedFormat: made by a newer version. CorruptRecord: the manifest is not one.
        StoreUnavailable: missing (when reading only), or not a folder that can be used.
    """
    found = _read_manifest(path)
    shard = path / "shard-0000"
    if found is not None:
        _check_manifest(found, path)
    elif read_only:
        raise StoreUnavailable(f"{path} holds no store: check the path, or ingest something into it", path=str(path))
    if not read_only:
        with lmdb_errors(path):
            shard.mkdir(parents=True, exist_ok=True)
    return shard


def write_manifest(path: Path) -> None:
    """Write the manifest unless there is one; call it with the writer's lock held, once LMDB could be opened."""
    target, draft = path / "manifest.json", path / "manifest.json.new"
    with lmdb_errors(path):
        if target.exists():
            return
        with draft.open("w") as file:
            json.dump({"format": FORMAT, "shards": 1}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        for folder in (path / "shard-0000", path, path.parent):
            _sync_folder(folder)  # a new file survives a power cut only once its folder is synced


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_manifest(path: Path) -> object:
    try:
        found = json.loads((path / "manifest.json").read_bytes())
        return {} if found is None else found
    except FileNotFoundError:
        return None
    except ValueError:
        raise CorruptRecord(f"{path}/manifest.json is not JSON: restore it from a copy", path=str(path)) from None
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read ({error.strerror}): check the path", path=str(path)) from None


def _check_manifest(found: object, path: Path) -> None:
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise CorruptRecord(f"{path}/manifest.json names no format: restore it from a copy", path=str(path))
    if found["format"] != FORMAT or found.get("shards") != 1:
        raise UnsupportedFormat(
            f"{path} has format {found['format']} with {found.get('shards')} shard(s), this version reads format "
            f"{FORMAT} with 1: use the version that made it",
            path=str(path),
            format=found["format"],
        )
