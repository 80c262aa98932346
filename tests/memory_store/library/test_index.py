"""What an index takes in, what it refuses, and what is removed from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memory_store import InvalidRecord
from memory_store.library import LibraryIndex, LibrarySettings, block_range, split_ids, stream_range, vector_ids
from memory_store.records import Array
from tests.memory_store.library.clusters import SMALL, SPEC, D, H, Library, V


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ([5 << 8, 5 << 8], "block 5 of stream number 0 is given twice"),
        ([6 << 8, 5 << 8], "block 5 of stream number 0 is given twice or out of order"),
        ([9 << 8, 1 << 40, 8 << 8], "block 8 of stream number 0 is given twice or out of order"),
        ([2 << 8], "block 2 of stream number 0 was added before: 3 blocks are indexed"),
        ([2 << 8 | 1], "block 2 of stream number 0 was added before"),
        ([-1], "from 0 up"),
    ],
)
def test_an_id_twice_or_out_of_order_is_refused(ids: list[int], named: str) -> None:
    index = LibraryIndex(SPEC, lambda ids: np.zeros((len(ids), H * D)), SMALL)
    index.add(vector_ids(0, range(3), 1), np.ones((3, H, D)))

    with pytest.raises(InvalidRecord, match=named):
        index.add(np.array(ids), np.ones((len(ids), H, D)))

    assert index.num_vectors == 3 and dict(index.num_blocks) == {0: 3}


def test_a_removed_block_is_not_added_again() -> None:
    index = LibraryIndex(SPEC, lambda ids: np.zeros((len(ids), H * D)), SMALL)
    index.add(vector_ids(0, range(3), 1), np.ones((3, H, D)))
    index.remove_range(*stream_range(0))

    with pytest.raises(InvalidRecord, match="was added before"):
        index.add(vector_ids(0, range(2, 3), 1), np.ones((1, H, D)))


@pytest.mark.parametrize(
    "vectors", [np.ones((2, H, D)), np.ones((1, D, H)), np.full((1, H, D), np.nan), np.ones(H * D)]
)
def test_vectors_unlike_the_spec_are_refused(vectors: Array) -> None:
    index = LibraryIndex(SPEC, lambda ids: np.zeros((len(ids), H * D)), SMALL)

    with pytest.raises(InvalidRecord):
        index.add(vector_ids(0, range(1), 1), vectors)
    assert index.num_vectors == 0


@pytest.mark.parametrize(
    "settings", [{"tail_limit": 0}, {"codec": "pq"}, {"num_probes": 0}, {"merge_factor": 1}, {"dead_share": 1.0}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidRecord):
        LibrarySettings(**settings)  # type: ignore[arg-type]


def test_a_range_holds_both_its_ends(library: Library) -> None:
    index = library.index()
    for vector_id in (int(index._state.tail.ids[3]), int(index._state.segments[0].ids[3])):
        query, lonely = library.load(np.array([vector_id]))[0], [(vector_id, vector_id)]
        assert index.search(query, 5, ids=lonely)[0].tolist() == [vector_id]
        assert vector_id in index.search(query, 5)[0]
        index.remove_range(vector_id, vector_id)
        assert not len(index.search(query, 5, ids=lonely)[0])
        assert vector_id not in index.search(query, 5)[0]
    assert index.num_vectors == len(library.ids) - 2


@pytest.mark.parametrize("dead_share", [0.25, 0.99])
def test_removed_vectors_are_never_found(library: Library, dead_share: float) -> None:
    index = library.index(replace(SMALL, dead_share=dead_share))
    removed = [stream_range(1), block_range(2, range(300, 400)), block_range(3, range(950, 1_000))]
    for first, last in removed:
        index.remove_range(first, last)

    assert index.num_vectors == len(library.ids) - V * (1_000 + 100 + 50)
    for query in library.queries(20):
        expected, _ = library.exact(query, 64, removed=removed)
        found, _ = index.search(query, 64)
        assert not set(split_ids(found)[0].tolist()) & {1}
        assert len(np.intersect1d(found, expected)) >= 60
        for ranges in removed:
            assert not len(index.search(query, 64, ids=[ranges])[0])


def test_removing_all_leaves_an_index_that_can_go_on(library: Library) -> None:
    index = library.index()
    for stream in range(library.num_streams):
        index.remove_range(*stream_range(stream))

    assert index.num_vectors == 0
    assert not len(index.search(library.queries(1)[0], 5)[0])
    index.add(vector_ids(9, range(3), 1), library.vectors[:3])
    assert index.search(library.vectors[1], 1)[0].tolist() == [vector_ids(9, range(1, 2), 1)[0]]
