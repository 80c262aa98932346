"""One writer, many reading threads and processes, searches beside commits: every read is compared bit for bit."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from memory_store import BlockNotFound, Durability, Store, StreamNotFound
from tests.memory_store.conformance import D, H, L, expected_kv
from tests.memory_store.faults.workload import (
    Held,
    WrongDataError,
    change,
    check_blocks,
    check_search,
    check_stream,
    commit_of,
    start_python,
)

_READS_AT_ONCE = 6
_AT_MOST_S = (
    120.0  # longer than asked for, until every kind of read was made once: on a busy machine the rare ones wait
)
_PAUSE_S = 0.001  # a thread that calls LMDB without pause takes the interpreter's lock back before another wakes for it


class Readers:
    """Threads that read the stream "a-large", and one more that comes and goes, until told to stop."""

    def __init__(self, store: Store) -> None:
        self.reads: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self.fleeting: set[bytes] = set()
        self._store = store
        self._stop = threading.Event()
        self._looks = [self._recent, self._anywhere, self._search, self._fleeting]
        self._threads = [threading.Thread(target=self._run, args=(self._looks[at % 4], at)) for at in range(8)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def are_done(self) -> bool:
        """Whether every kind of read was made at least once, or one went wrong."""
        return bool(self.errors) or all(self.reads[look.__name__] for look in self._looks)

    def _run(self, look: Callable[[random.Random, int], object], seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not self._stop.is_set():
                found = look(rng, self._store.stats("a-large").num_blocks)
                self.reads[look.__name__] += found is not False
                time.sleep(_PAUSE_S)
        except BaseException as error:
            self.errors.append(error)

    def _recent(self, _: random.Random, count: int) -> None:
        check_blocks(self._store, "a-large", 0, count, range(max(0, count - _READS_AT_ONCE), count))

    def _anywhere(self, rng: random.Random, count: int) -> None:
        first = rng.randrange(count)
        check_blocks(self._store, "a-large", 0, count, range(first, min(count, first + _READS_AT_ONCE)))

    def _search(self, _: random.Random, count: int) -> None:
        check_search(self._store, "a-large", 0, count)

    def _fleeting(self, rng: random.Random, _: int) -> bool:
        """A stream that is deleted and made again: what an open reader holds is of one generation, to its end.

        Returns:
            Whether it was there.
        """
        try:
            reader = self._store.reader("fleeting-large", [0, 1], fingerprint="model-a")
        except (StreamNotFound, BlockNotFound):
            return False
        with reader:
            out = np.zeros((2, L, H, 2 * reader.shape[3], D), np.uint16)
            time.sleep(rng.uniform(0, 1))  # meanwhile its pages are let go
            reader.read(range(L), out[0], out[1])
        if out.tobytes() not in self.fleeting:
            raise WrongDataError("the KV of a stream that comes and goes")
        return True


def write_beside(readers: Readers, store: Store, seconds: float) -> int:
    """Append to "a-large", and make and delete "fleeting-large", for that long and until the readers are done.

    Returns:
        How many blocks "a-large" has then.
    """
    count = store.stats("a-large").num_blocks
    start = time.monotonic()
    while (spent := time.monotonic() - start) < seconds or (not readers.are_done() and spent < seconds + _AT_MOST_S):
        commit = commit_of("fleeting-large", count, range(2))
        readers.fleeting.add(expected_kv(list(commit.blocks)).tobytes())
        change(store, "fleeting-large", None, Held(generation=count, num_blocks=0))
        store.commit([commit])
        for size in (1, 2, 1):
            store.commit([commit_of("a-large", 0, range(count, count + size))])
            count += size
        store.delete_stream("fleeting-large")
    return count


@pytest.mark.parametrize(
    "seconds", [4, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(600)])], ids="{}s".format
)
@pytest.mark.parametrize(("durability", "hot_bytes"), [(Durability.POWER_SAFE, 0), (Durability.RELAXED, 200_000)])
def test_every_read_beside_a_writer_is_exact(
    tmp_path: Path, durability: Durability, hot_bytes: int, seconds: int
) -> None:
    small = 1 << 19  # the map must grow several times
    with Store.open(tmp_path, durability=durability, map_size=small, hot_bytes=hot_bytes) as store:
        change(store, "a-large", None, Held(generation=0, num_blocks=0))
        store.commit([commit_of("a-large", 0, range(1))])
        processes = [start_python("children:read_on", folder=tmp_path) for _ in range(4)]
        assert {process.stdout.readline() for process in processes} == {"reading\n"}
        with Readers(store) as readers:
            count = write_beside(readers, store, seconds)
        outside = [int(process.communicate()[0]) for process in processes]
        assert check_stream(store, "a-large") == Held(generation=0, num_blocks=count)
    print(f"concurrency, {durability}, {seconds} s: {count} blocks written; reads by threads {dict(readers.reads)}, "
          f"by processes {outside}; none wrong")  # fmt: skip
    assert readers.errors == []
    assert [process.returncode for process in processes] == [0] * 4
    assert readers.are_done() and min(outside) > 0


def test_what_an_open_reader_holds_stays_while_its_stream_goes(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        commit = commit_of("fleeting-large", 0, range(2))
        change(store, "fleeting-large", None, Held(generation=0, num_blocks=0))
        store.commit([commit])
        change(store, "a-large", None, Held(generation=0, num_blocks=0))
        with store.reader("fleeting-large", [0, 1], fingerprint="model-a") as reader:
            store.delete_stream("fleeting-large")
            for at in range(6):
                store.upkeep.housekeep()
                store.commit([commit_of("a-large", 0, range(at, at + 1))])
            out = np.zeros((2, L, H, 2 * reader.shape[3], D), np.uint16)
            reader.read(range(L), out[0], out[1])
        assert out.tobytes() == expected_kv(list(commit.blocks)).tobytes()
        assert check_stream(store, "a-large") == Held(generation=0, num_blocks=6)


def test_what_one_caller_did_wrong_is_not_told_to_another_of_its_group(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise ValueError("a mistake of this caller")

    with Store.open(tmp_path) as store, ThreadPoolExecutor(3) as pool:
        change(store, "a-small", None, Held(generation=0, num_blocks=0))
        writer = store._shards[0].writer
        slow = pool.submit(writer.write, lambda _: time.sleep(0.4))  # both others come meanwhile and share the next
        time.sleep(0.1)
        good = pool.submit(store.commit, [commit_of("a-small", 0, range(1))])
        time.sleep(0.1)
        bad = pool.submit(writer.write, fail)
        assert (slow.exception(), good.exception(), type(bad.exception())) == (None, None, ValueError)
        assert store.stats("a-small").num_blocks == 1
