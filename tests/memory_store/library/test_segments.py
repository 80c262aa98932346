"""Segments: sealed, merged, and built anew when much of them is removed."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from memory_store import CorruptRecord
from memory_store.library import CODECS, LibraryIndex, LibrarySettings, stream_range, vector_ids
from memory_store.library import state as state_module
from memory_store.library.segment import build
from memory_store.records import Array
from tests.memory_store.library.clusters import SMALL, SPEC, Library, V, recall


def test_segments_take_less_memory_than_vectors(library: Library, sealed: LibraryIndex) -> None:
    assert sealed.num_bytes < 0.8 * library.index(LibrarySettings(tail_limit=10_000)).num_bytes


def test_a_filter_that_leaves_half_the_rows_has_twice_the_lists_searched() -> None:
    rng = np.random.default_rng(0)
    vectors, ids = rng.standard_normal((4_000, 16)).astype(np.float32), np.arange(4_000)
    segment = build(0, ids, lambda wanted: vectors[wanted], "sq8")
    num_lists, half = segment.index.nlist, np.array([[0, 1_999]])

    for query in rng.standard_normal((20, 16)).astype(np.float32):
        expected, _ = segment.search(query, 10, half, num_lists)
        assert segment.search(query, 10, half, -(-num_lists // 2))[0].tolist() == expected.tolist()


@pytest.mark.parametrize("codec", CODECS)
def test_segments_of_one_size_become_one(library: Library, codec: str) -> None:
    merged = library.index(LibrarySettings(tail_limit=200, merge_factor=2, codec=codec))

    assert len(merged._state.segments) <= 6
    assert len(library.index(LibrarySettings(tail_limit=200, merge_factor=50))._state.segments) > 20
    assert merged.num_vectors == len(library.ids)
    assert recall(merged, library) >= 0.98


def test_a_segment_with_many_removed_is_built_without_them(library: Library) -> None:
    lazy, tidy = library.index(replace(SMALL, dead_share=0.9)), library.index(SMALL)
    for index in (lazy, tidy):
        index.remove_range(*stream_range(1))
        index.remove_range(*stream_range(2))

    assert lazy.num_vectors == tidy.num_vectors == len(library.ids) // 2
    assert tidy.num_bytes < 0.7 * lazy.num_bytes


def test_what_cannot_be_read_fails_the_search_and_not_the_add() -> None:
    library, broken = Library(num_streams=2, num_blocks=800), threading.Event()

    def load(ids: Array) -> Array:
        if broken.is_set():
            raise CorruptRecord("a summary fails its checksum")
        return library.load(ids)

    index = library.fill(LibraryIndex(SPEC, load, replace(SMALL, codec="rabitq")))
    segments = len(index._state.segments)
    broken.set()
    index.remove_range(*stream_range(0))
    index.add(vector_ids(7, range(600), V), library.vectors[: 600 * V])

    assert index.num_vectors == 800 * V + 600 * V
    assert len(index._state.segments) == segments + 1
    with pytest.raises(CorruptRecord):
        index.search(library.queries(1)[0], 5)


def test_what_is_due_comes_in_order(library: Library) -> None:
    index = library.index(replace(SMALL, dead_share=0.9, merge_factor=50))
    state = index._state
    first = state.segments[0]
    halved = first.without(np.arange(len(first.ids)) % 2 == 0)
    worn = replace(state, segments=(halved, *state.segments[1:]))

    assert state_module.due(state, replace(SMALL, merge_factor=50)) is None
    assert state_module.due(worn, SMALL) == state_module.Parts(keys=frozenset({first.key}))
    assert state_module.due(worn, SMALL, frozenset({first.key})) == state_module.due(
        replace(state, segments=state.segments[1:]), SMALL
    )
    assert state_module.due(worn, replace(SMALL, tail_limit=10)) == state_module.Parts(tail_rows=state.tail.count)
