"""LMDB's errors, and the system's, as this package's."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import lmdb

from memory_store.errors import CorruptRecord, StoreFull, StoreLocked, StoreUnavailable, UnsupportedFormat

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DAMAGED = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)


@contextlib.contextmanager
def lmdb_errors(path: Path, *, passing: type[lmdb.Error] | tuple[()] = ()) -> Iterator[None]:
    """Raise LMDB's and the system's errors as this package's; `passing` goes through as it is."""
    try:
        yield
    except passing:
        raise
    except (lmdb.Error, OSError) as error:
        raise _translated(error, path) from error


def _translated(error: lmdb.Error | OSError, path: Path) -> Exception:
    code = error.errno if isinstance(error, OSError) else error.code
    ids: dict[str, object] = {"path": str(path)}
    if code in _NO_ROOM or (code == errno.EIO and _no_room(path)):
        return StoreFull(f"no space left to write {path}: free some; what was committed before stays readable", **ids)
    if "already open in this process" in str(error):
        return StoreLocked(f"{path} is open in this process (pid {os.getpid()}) already", pid=os.getpid(), **ids)
    if isinstance(error, lmdb.VersionMismatchError):
        return UnsupportedFormat(f"{path} was made by another LMDB ({error}): use the version that made it", **ids)
    if isinstance(error, _DAMAGED):
        return CorruptRecord(f"the database in {path} is damaged ({error}): restore it or ingest again", **ids)
    return StoreUnavailable(f"{path} cannot be used ({error}): check that it exists and may be written", **ids)


def _no_room(path: Path) -> bool:
    """Whether a short write (LMDB calls it an input/output error) was one for want of space."""
    with contextlib.suppress(OSError):
        room, limit = os.statvfs(path), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        at_limit = limit != resource.RLIM_INFINITY and (path / "data.mdb").stat().st_size >= limit
        return at_limit or room.f_bavail * room.f_frsize < 16 << 20
    return False
