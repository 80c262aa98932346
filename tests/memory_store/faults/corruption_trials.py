"""One changed byte in a closed store, and all that can be read of it; each trial in a process of its own."""

from __future__ import annotations

import functools
import json
import random
import shutil
import struct
from pathlib import Path

from memory_store import Durability, Store, StoreError
from tests.memory_store.faults.power import PAGE
from tests.memory_store.faults.workload import (
    Held,
    WrongDataError,
    change,
    check_kv,
    check_stream,
    commit_of,
    forked,
    record_of,
)

DATA = "shard-0000/data.mdb"
HELD = {"a-small": 9, "b-large": 5, "c-small": 3, "d-large": 2}
_TURNS = b"turns of a session" * 30
_MAP_SIZE = 1 << 26
_PAGE_HEADER = 16
_WRITE_EVERY = 3
_KINDS = {1: "branch", 2: "leaf", 4: "overflow", 8: "meta"}


def make(folder: Path, shards: int = 1) -> None:
    """A closed store of some streams, one of them deleted again, and a session."""
    with Store.open(folder, shards=shards, map_size=_MAP_SIZE) as store:
        for name in (*HELD, "gone-large"):
            store.create_stream(record_of(name, 0))
        for at in range(max(HELD.values())):
            for name, count in HELD.items():
                if at < count:
                    store.commit([commit_of(name, 0, range(at, at + 1))])
        store.commit([commit_of("gone-large", 0, range(4))])
        store.delete_stream("gone-large")
        store.put_turns("a-small/session", _TURNS, 1e12)


def page_kinds(data: bytes) -> list[str]:
    """Of each page: "branch", "leaf", "overflow", "meta", or "free" where the file has never been written."""
    kinds: list[str] = []
    while len(kinds) * PAGE < len(data):
        flags, pages = struct.unpack_from("<HI", data, len(kinds) * PAGE + 10)
        kind = _KINDS.get(flags & 0xF, "free")
        kinds += [kind] * (pages if kind == "overflow" else 1)
    return kinds


def sampled(data: bytes, count: int, seed: int) -> list[tuple[int, int]]:
    """(offset, bits to flip): a third in what LMDB itself needs (page headers, meta pages), the rest anywhere."""
    rng, kinds = random.Random(seed), page_kinds(data)
    heads = [page * PAGE + at for page in range(len(kinds)) for at in range(_PAGE_HEADER)]
    nodes = [page * PAGE + at for page, kind in enumerate(kinds) if kind in ("leaf", "branch") for at in range(PAGE)]
    metas = list(range(2 * PAGE)) if count > 1000 else list(range(0, 160)) + list(range(PAGE, PAGE + 160))
    offsets = rng.choices(heads, k=count // 6) + rng.choices(metas, k=count // 6)
    offsets += rng.choices(nodes, k=count // 3)
    offsets += [rng.randrange(len(data)) for _ in range(count - len(offsets))]
    return [(offset, rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])) for offset in offsets]


def try_flips(first: int, folder: str, scratch: str, file: str, count: int, seed: int) -> None:
    """Flip each sampled byte of `file` from number `first` on; print what became of it."""
    data = (Path(folder) / file).read_bytes()
    flips = sampled(data, count, seed) if file == DATA else sampled_text(data, count, seed)
    kinds = page_kinds(data) if file == DATA else []
    for number, (offset, bits) in enumerate(flips[first:], first):
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(folder, scratch, ignore=shutil.ignore_patterns("lock.mdb", "writer.lock"))
        changed = bytearray(data)
        changed[offset] ^= bits
        (Path(scratch) / file).write_bytes(changed)
        result = forked(functools.partial(outcome, Path(scratch), write=number % _WRITE_EVERY == 0))
        place = {"offset": offset, "bits": bits, "kind": kinds[offset // PAGE] if kinds else "manifest"}
        print(json.dumps(result | place), flush=True)


def tree_pages(data: bytes) -> list[int]:
    """Offsets of the pages that look like leaves or branches of a tree."""
    return [page * PAGE for page, kind in enumerate(page_kinds(data)) if kind in ("leaf", "branch")]


def try_kinds(first: int, folder: str, scratch: str) -> None:
    """Make each page of a tree one of no kind; print what a reader of blocks, and then all other reads, make of it."""
    data = (Path(folder) / DATA).read_bytes()
    trials = [(offset, trial) for offset in tree_pages(data) for trial in (reader_outcome, outcome)]
    for offset, trial in trials[first:]:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(folder, scratch)
        changed = bytearray(data)
        struct.pack_into("<H", changed, offset + 10, 0)
        (Path(scratch) / DATA).write_bytes(changed)
        result = forked(functools.partial(trial, Path(scratch)))
        print(json.dumps(result | {"offset": offset, "kind": trial.__name__}), flush=True)


def reader_outcome(folder: Path) -> dict[str, object]:
    """As `outcome`, when nothing but the readers of blocks is asked."""
    try:
        with Store.open(folder, read_only=True, map_size=_MAP_SIZE) as store:
            for name, count in HELD.items():
                check_kv(store, name, 0, range(count))
        return {"outcome": "right"}
    except WrongDataError as wrong:
        return {"outcome": "wrong", "error": str(wrong)}
    except StoreError as error:
        return {"outcome": "refused", "error": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return {"outcome": "raised", "error": f"{type(error).__name__}: {error}"}


def sampled_text(data: bytes, count: int, seed: int) -> list[tuple[int, int]]:
    """(offset, bits to flip) in a small text: every digit as every other, then anything."""
    rng = random.Random(seed)
    digits = b"0123456789"
    numbers = [
        (at, byte ^ other) for at, byte in enumerate(data) for other in digits if byte in digits and byte != other
    ]
    return [*numbers, *[(at % len(data), rng.randrange(1, 256)) for at in range(count)]][:count]


def outcome(folder: Path, *, write: bool = False) -> dict[str, object]:
    """ "right"; "refused" with a StoreError; "stale": right as far as it goes; "wrong"; or "raised": another error.

    Args:
        write: whether a store that reads right is also written to and read again.
    """
    stage = "reading"
    try:
        with Store.open(folder, read_only=True, map_size=_MAP_SIZE) as store:
            found = _read_all(store, HELD)
        if found != "right" or not write:
            return {"outcome": found, "stage": stage}
        stage = "writing"
        with Store.open(folder, durability=Durability.RELAXED, map_size=_MAP_SIZE) as store:
            longer = _write_some(store)
            found = _read_all(store, longer)
        return {"outcome": found, "stage": stage}
    except WrongDataError as wrong:
        return {"outcome": "wrong", "stage": stage, "error": str(wrong)}
    except StoreError as error:
        return {"outcome": "refused", "stage": stage, "error": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return {"outcome": "raised", "stage": stage, "error": f"{type(error).__name__}: {error}"}


def _read_all(store: Store, expected: dict[str, int]) -> str:
    held = {name: check_stream(store, name) for name in expected}
    listed = [record.stream_id for record in store.list_streams()]
    turns = store.get_turns("a-small/session", 0.0)
    if turns not in (_TURNS, None):
        raise WrongDataError("turns")
    whole = {name: Held(generation=0, num_blocks=count) for name, count in expected.items()}
    return "right" if (held, listed, turns) == (whole, sorted(expected), _TURNS) else "stale"


def _write_some(store: Store) -> dict[str, int]:
    """Append to every stream, and make and delete another; returns how long the streams are now."""
    longer = {}
    for name, count in HELD.items():
        store.commit([commit_of(name, 0, range(count, count + 3))])
        longer[name] = count + 3
    change(store, "new-large", None, Held(generation=0, num_blocks=0))
    store.commit([commit_of("new-large", 0, range(3))])
    store.delete_stream("new-large")
    return longer
