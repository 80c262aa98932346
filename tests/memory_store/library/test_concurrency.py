"""Searches, adds and removals beside each other, and beside the building of segments."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from memory_store.library import LibraryIndex, LibrarySettings, block_range, stream_range, vector_ids
from memory_store.library import index as index_module
from tests.memory_store.library.clusters import SMALL, SPEC, Library, V


def test_what_a_search_holds_never_changes(library: Library) -> None:
    index = library.index(LibrarySettings(tail_limit=10_000))
    state = index._state
    before = state.tail.ids.copy(), state.tail.vectors.copy()

    index.remove_range(*stream_range(1))
    index.add(vector_ids(9, range(600), V), library.vectors[: 600 * V])

    assert state.tail.alive.all() and len(state.tail.ids) == len(library.ids)
    assert (state.tail.ids == before[0]).all() and (state.tail.vectors == before[1]).all()


def test_searches_beside_adds_and_removals_find_what_is_there() -> None:
    library = Library(num_streams=6, num_blocks=500, seed=2)
    index = LibraryIndex(SPEC, library.load, replace(SMALL, tail_limit=300, merge_factor=2))
    done = threading.Event()

    def search(seed: int) -> int:
        rng, count = np.random.default_rng(seed), 0
        while not done.is_set() or count < 20:
            ids, scores = index.search(library.vectors[rng.integers(len(library.ids))], 20)
            np.testing.assert_array_equal(np.unique(ids).size, len(ids))
            assert (np.diff(scores) <= 0).all()
            count += 1
        return count

    def write(stream: int) -> None:
        for start in range(0, 500, 25):
            ids = vector_ids(stream, range(start, start + 25), V)
            index.add(ids, library.load(ids))
            index.search(library.vectors[0], 3, ids=[stream_range(stream)])
        index.remove_range(*block_range(stream, range(100, 200)))

    with ThreadPoolExecutor(8) as pool:
        searches = [pool.submit(search, seed) for seed in range(2)]
        try:
            list(pool.map(write, range(6)))
        finally:
            done.set()
        assert all(task.result() for task in searches)

    assert index.num_vectors == 6 * 400 * V
    removed = [block_range(stream, range(100, 200)) for stream in range(6)]
    for query in library.queries(10):
        expected, _ = library.exact(query, 50, removed=removed)
        assert len(np.intersect1d(index.search(query, 50)[0], expected)) >= 48


class PausedBuild:
    """Building a segment stops at `building` and waits for `go_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.building, self.go_on = threading.Event(), threading.Event()
        self._build = index_module.build
        monkeypatch.setattr(index_module, "build", self)

    def __call__(self, *args: Any) -> object:
        self.building.set()
        assert self.go_on.wait(30)
        return self._build(*args)


def adding(library: Library, index: LibraryIndex, stream: int, num_blocks: int) -> threading.Thread:
    ids = vector_ids(stream, range(num_blocks), V)
    thread = threading.Thread(target=index.add, args=(ids, library.load(ids)))
    thread.start()
    return thread


def test_searches_adds_and_removals_go_on_while_a_segment_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(num_streams=3, num_blocks=600)
    index, paused = LibraryIndex(SPEC, library.load, SMALL), PausedBuild(monkeypatch)
    sealing = adding(library, index, 0, 600)
    try:
        assert paused.building.wait(30)
        late = vector_ids(1, range(100), V)
        index.add(late, library.load(late))
        index.remove_range(*block_range(0, range(100)))
        found = index.search(library.load(late[:1])[0], 1)[0]
    finally:
        paused.go_on.set()
        sealing.join()

    assert found.tolist() == [late[0]]
    assert [len(segment.ids) for segment in index._state.segments] == [600 * V]
    assert index._state.tail.ids.tolist() == late.tolist()
    assert index.num_vectors == 500 * V + 100 * V
    assert not len(index.search(library.queries(1)[0], 5, ids=[block_range(0, range(100))])[0])


def test_an_add_waits_for_a_seal_that_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(num_streams=2, num_blocks=2_000)
    index, paused = LibraryIndex(SPEC, library.load, SMALL), PausedBuild(monkeypatch)
    sealing = adding(library, index, 0, 600)
    try:
        assert paused.building.wait(30)
        waiting = adding(library, index, 1, 2_000)
        waiting.join(0.3)
        waited = waiting.is_alive()
    finally:
        paused.go_on.set()
        sealing.join()
        waiting.join()

    assert waited
    assert index._state.tail.count <= SMALL.tail_limit and index.num_vectors == 2_600 * V
