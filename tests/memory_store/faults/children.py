"""What the processes do that the tests of this folder start."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from memory_store import Durability, Store, StoreFull
from tests.memory_store.faults.workload import Held, check_blocks, check_stream, commit_of, plan, record_of, work

STREAMS = ("a-small", "b-large")
FILLED = ("a-large", "b-large", "c-small", "d-large", "e-small")


def write_on(folder: str, durability: str, seed: int) -> None:
    """Change the streams in a thread each, for ever; a line for every mark."""
    with Store.open(folder, durability=Durability(durability), map_size=1 << 18) as store:
        threads = [threading.Thread(target=_write_on, args=(store, name, seed)) for name in STREAMS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _write_on(store: Store, name: str, seed: int) -> None:
    before = check_stream(store, name)
    changes = plan(f"{name}/{seed}", 10**6, before=before, generation=1000 * (seed + 1))
    work(store, name, changes, _say, before)


def _say(mark: tuple[str, str, Held | None]) -> None:
    os.write(1, (json.dumps(mark, default=_fields) + "\n").encode())  # at once: threads must not share a buffer


def _fields(held: Held) -> list[int]:
    return [held.generation, held.num_blocks]


def append(folder: str) -> None:
    """Append to the stream "a-large" for ever, its length a line each."""
    with Store.open(folder) as store:
        store.create_stream(record_of("a-large", 0))
        for at in range(store.stats("a-large").num_blocks, 10**6):
            store.commit([commit_of("a-large", 0, range(at, at + 1))])
            print(at + 1, flush=True)


def hold_a_reader(folder: str) -> None:
    """Open a reader of the stream "a-large" and keep it."""
    with Store.open(folder, read_only=True) as store, store.reader("a-large", [0], fingerprint="model-a"):
        print("holding", flush=True)
        time.sleep(3600)


def read_on(folder: str) -> None:
    """Read the stream "a-large" and compare it, until standard input ends; then print how many reads there were."""
    ended, reads = threading.Event(), 0
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with Store.open(folder, read_only=True, map_size=1 << 20) as store:
        print("reading", flush=True)
        while not ended.is_set():
            count = store.stats("a-large").num_blocks
            check_blocks(store, "a-large", 0, count, range(max(0, count - 4), count))
            reads += 1
            time.sleep(0.002)  # four of these would leave the writer no core
    print(reads, flush=True)


def fill_up(folder: str, limit: int, durability: str) -> None:
    """Commit from several threads until nothing more fits, check what is there, make room, and go on.

    Args:
        limit: bytes a file may have; 0: the file system is as small as it is, and a file "ballast" can be deleted.
    """
    with Store.open(folder, durability=Durability(durability)) as store:
        for name in FILLED:
            store.create_stream(record_of(name, 0))
            store.commit([commit_of(name, 0, range(1))])
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
        with ThreadPoolExecutor(len(FILLED)) as pool:
            counts = list(pool.map(lambda name: _fill(store, name), FILLED))
        _expect(store, counts)
        if told := _all_at_once(store, counts):
            raise AssertionError(f"{told} were told that what does not fit was written")
        _expect(store, counts)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        else:
            (Path(folder).parent / "ballast").unlink()
        with ThreadPoolExecutor(len(FILLED)) as pool:
            list(pool.map(lambda name, at: store.commit([commit_of(name, 0, range(at, at + 1))]), FILLED, counts))
        _expect(store, [count + 1 for count in counts])
    with Store.open(folder) as store:
        _expect(store, [count + 1 for count in counts])
    print(json.dumps(counts))


def _fill(store: Store, name: str) -> int:
    """Blocks of the stream once the store is full."""
    for at in range(1, 10**6):
        try:
            store.commit([commit_of(name, 0, range(at, at + 1))])
        except StoreFull:
            return at
    raise AssertionError("never full")


def _all_at_once(store: Store, counts: list[int]) -> list[str]:
    """Streams whose thread did not get StoreFull, when all threads commit more than fits at the same time."""
    together = threading.Barrier(len(FILLED))

    def commit(name: str, count: int) -> bool:
        commits = [commit_of(name, 0, range(count, count + 600))]
        together.wait()
        try:
            store.commit(commits)
        except StoreFull:
            return True
        return False

    with ThreadPoolExecutor(len(FILLED)) as pool:
        return [name for name, full in zip(FILLED, pool.map(commit, FILLED, counts), strict=True) if not full]


def _expect(store: Store, counts: list[int]) -> None:
    found = [check_stream(store, name) for name in FILLED]
    if found != [Held(generation=0, num_blocks=count) for count in counts]:
        raise AssertionError(f"{found} instead of {counts} blocks")
