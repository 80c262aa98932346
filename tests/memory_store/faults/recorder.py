"""Every write and every barrier LMDB makes in this process, in order.

No system tracer and no compiler is needed: the calls that the loaded lmdb extension makes into libc go through a table
of addresses (the ELF global offset table), and `Recorder` puts its own functions there. Only a process that is about to
do its work and die should be recorded: the table is never put back.

    Write     bytes at an offset; `durable` when its descriptor was opened with O_DSYNC, as LMDB's for meta pages is
    Barrier   begin and end of fsync, fdatasync or msync: what was written before the begin is on disk at the end
    Resize    ftruncate
    Mark      what the workload said in between (for one, that a commit returned)
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

_PAGE = mmap.PAGESIZE
_SSIZE, _FD, _AT, _SIZE, _OFFSET = ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long
#: libc function -> its result and arguments.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "write": (_SSIZE, _FD, _AT, _SIZE),
    "pwrite": (_SSIZE, _FD, _AT, _SIZE, _OFFSET),
    "writev": (_SSIZE, _FD, _AT, _FD),
    "pwritev": (_SSIZE, _FD, _AT, _FD, _OFFSET),
    "fsync": (_FD, _FD),
    "fdatasync": (_FD, _FD),
    "msync": (_FD, _AT, _SIZE, _FD),
    "ftruncate": (_FD, _FD, _OFFSET),
}
#: Relocations that name a function: jump slot and global data, of x86-64 and of AArch64.
_NAMING = {7, 6, 1026, 1025}


@dataclass(frozen=True, slots=True)
class Write:
    file: str
    offset: int
    data: bytes
    durable: bool


@dataclass(frozen=True, slots=True)
class Barrier:
    """`file` is "" when it is unknown which one (msync): all of them."""

    file: str
    number: int
    end: bool


@dataclass(frozen=True, slots=True)
class Resize:
    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Mark:
    what: Any


Event: TypeAlias = Write | Barrier | Resize | Mark


class Recorder:
    """Install it before the first store is opened. `events` holds all there was; `mark` adds to it. Thread-safe."""

    def __init__(self, library: Path) -> None:
        """Args: library: the loaded extension whose calls are to be seen.

        Raises:
            RuntimeError: it calls none of the functions watched.
        """
        self.events: list[Event] = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._barriers = iter(range(1 << 60))
        self._lock = threading.Lock()  # of a file position: writev moves it
        self._keep: list[Any] = []  # the table points at these
        handlers: dict[str, Callable[..., int]] = {
            "write": self._write, "pwrite": self._pwrite, "writev": self._writev, "pwritev": self._pwritev,
            "fsync": self._barrier, "fdatasync": self._barrier, "msync": self._msync, "ftruncate": self._ftruncate,
        }  # fmt: skip
        for name, slot in _slots(library):
            if name.removesuffix("64") in handlers:
                self._replace(name.removesuffix("64"), slot, handlers)
        if not self._keep:
            raise RuntimeError(f"{library} calls none of {sorted(handlers)}")

    def mark(self, what: Any) -> None:
        self.events.append(Mark(what))

    def save(self, path: Path) -> None:
        path.write_bytes(pickle.dumps(self.events))

    def _replace(self, name: str, slot: int, handlers: dict[str, Callable[..., int]]) -> None:
        real = getattr(self._libc, name)
        real.restype, *real.argtypes = _SIGNATURES[name]
        handler = handlers[name]
        call = ctypes.CFUNCTYPE(*_SIGNATURES[name], use_errno=True)(lambda *given: handler(real, *given))
        self._keep.append(call)
        _make_writable(self._libc, slot)
        ctypes.c_void_p.from_address(slot).value = ctypes.cast(call, ctypes.c_void_p).value

    def _wrote(self, fd: int, offset: int, data: bytes, written: int) -> int:
        if written > 0:
            durable = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DSYNC)
            self.events.append(Write(_file(fd), offset, data[:written], durable))
        return written

    def _write(self, real: Callable[..., int], fd: int, at: int, size: int) -> int:
        data = ctypes.string_at(at, size)
        with self._lock:
            offset = os.lseek(fd, 0, os.SEEK_CUR)
            return self._wrote(fd, offset, data, real(fd, at, size))

    def _pwrite(self, real: Callable[..., int], fd: int, at: int, size: int, offset: int) -> int:
        data = ctypes.string_at(at, size)
        return self._wrote(fd, offset, data, real(fd, at, size, offset))

    def _writev(self, real: Callable[..., int], fd: int, vector: int, count: int) -> int:
        data = _gathered(vector, count)
        with self._lock:
            offset = os.lseek(fd, 0, os.SEEK_CUR)
            return self._wrote(fd, offset, data, real(fd, vector, count))

    def _pwritev(self, real: Callable[..., int], fd: int, vector: int, count: int, offset: int) -> int:
        data = _gathered(vector, count)
        return self._wrote(fd, offset, data, real(fd, vector, count, offset))

    def _barrier(self, real: Callable[..., int], fd: int) -> int:
        return self._within(_file(fd), lambda: real(fd))

    def _msync(self, real: Callable[..., int], at: int, size: int, flags: int) -> int:
        return self._within("", lambda: real(at, size, flags))

    def _within(self, file: str, call: Callable[[], int]) -> int:
        number = next(self._barriers)
        self.events.append(Barrier(file, number, end=False))
        result = call()
        if result == 0:
            self.events.append(Barrier(file, number, end=True))
        return result

    def _ftruncate(self, real: Callable[..., int], fd: int, size: int) -> int:
        result = real(fd, size)
        if result == 0:
            self.events.append(Resize(_file(fd), size))
        return result


def record_lmdb() -> Recorder:
    """A recorder of the lmdb package this process uses."""
    import lmdb

    (library,) = Path(lmdb.__file__).parent.glob("cpython*.so")
    return Recorder(library)


def _file(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def _gathered(vector: int, count: int) -> bytes:
    """The bytes of `count` struct iovec."""
    fields = (ctypes.c_size_t * (2 * count)).from_address(vector)
    return b"".join(ctypes.string_at(fields[2 * at], fields[2 * at + 1]) for at in range(count))


def _make_writable(libc: ctypes.CDLL, address: int) -> None:
    page = address & -_PAGE
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), mmap.PROT_READ | mmap.PROT_WRITE):
        raise OSError(ctypes.get_errno(), "mprotect")


def _slots(library: Path) -> Iterator[tuple[str, int]]:
    """Each imported symbol of a loaded ELF64 library and the address of its slot in this process."""
    data, base = library.read_bytes(), _base(library)
    sections = _sections(data)
    for kind, link, offset, size in sections:
        if kind != 4:  # SHT_RELA
            continue
        symbols_at, names_at = sections[link][2], sections[sections[link][1]][2]
        for place, info, _ in struct.iter_unpack("<QQq", data[offset : offset + size]):
            if info & 0xFFFFFFFF in _NAMING:
                (name,) = struct.unpack_from("<I", data, symbols_at + 24 * (info >> 32))
                start = names_at + name
                yield data[start : data.index(b"\0", start)].decode(), base + place


def _sections(data: bytes) -> list[tuple[int, int, int, int]]:
    """(type, link, offset, size) of every section."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise RuntimeError("not a little-endian ELF64 file")
    (table_at,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count = struct.unpack_from("<HH", data, 0x3A)
    headers = (struct.unpack_from("<IIQQQQI", data, table_at + at * entry_size) for at in range(count))
    return [(kind, link, offset, size) for _, kind, _, _, offset, size, link in headers]


def _base(library: Path) -> int:
    """Where the library is mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    starts = [int(line.split("-")[0], 16) for line in lines if line.endswith(str(library.resolve()))]
    if not starts:
        raise RuntimeError(f"{library} is not loaded")
    return min(starts)
