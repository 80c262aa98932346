"""Search against exact search: what it finds, within which filters and limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memory_store import InvalidRecord
from memory_store.index import normalised
from memory_store.library import (
    CODECS,
    IdRange,
    LibraryIndex,
    LibrarySettings,
    LibrarySpec,
    block_range,
    split_ids,
    stream_range,
    vector_ids,
)
from memory_store.records import Array
from tests.memory_store.library.clusters import SMALL, SPEC, D, H, Library, recall


def test_the_tail_alone_is_exact(library: Library) -> None:
    index = library.index(LibrarySettings(tail_limit=10_000))

    for query in library.queries(20):
        expected, scores = library.exact(query, 30)
        found, found_scores = index.search(query, 30)
        assert found.tolist() == expected.tolist()
        np.testing.assert_allclose(found_scores, scores, atol=2e-6)


def test_equal_vectors_tie_and_the_lower_id_is_first() -> None:
    index = LibraryIndex(SPEC, lambda ids: np.ones((len(ids), H * D), np.float32) / D**0.5, SMALL)
    for stream in (3, 1, 2):
        ids = vector_ids(stream, range(500), 1)
        index.add(ids, np.ones((500, H, D)))

    found, scores = index.search(np.ones((H, D)), 5, ids=[stream_range(2), stream_range(3)])

    assert found.tolist() == vector_ids(2, range(5), 1).tolist()
    assert scores.tolist() == [1.0] * 5


def test_scores_that_round_to_the_same_tie_at_the_limit() -> None:
    spec = LibrarySpec(fingerprint="model", layer=0, num_heads=1, head_dim=2)
    index = LibraryIndex(spec, lambda ids: np.zeros((len(ids), 2), np.float32))
    angle = np.arccos([0.3, 0.3 + 2e-7, 0.3, 0.1])
    index.add(vector_ids(0, range(4), 1), np.stack([np.cos(angle), np.sin(angle)], axis=1))

    assert split_ids(index.search(np.array([1.0, 0.0]), 1)[0])[1].tolist() == [0]


@pytest.mark.parametrize("codec", CODECS)
def test_sealed_vectors_are_found_and_scored_exactly(library: Library, codec: str) -> None:
    index = library.index(replace(SMALL, codec=codec))

    assert index.num_vectors == len(library.ids)
    assert recall(index, library) >= 0.98
    for query in library.queries(10):
        found, scores = index.search(query, 20)
        unit = normalised(query).ravel()
        np.testing.assert_allclose(scores, library.load(found) @ unit / H, atol=2e-6)
        assert (np.diff(scores) <= 0).all()


def test_a_larger_library_keeps_its_recall() -> None:
    library = Library(num_streams=10, num_blocks=2_000, num_clusters=400, seed=5)

    index = library.index(LibrarySettings(tail_limit=9_000, merge_factor=9))

    assert index.num_vectors == 40_000 and len(index._state.segments) == 4
    assert recall(index, library) >= 0.98


def filters(library: Library) -> dict[str, list[IdRange]]:
    return {
        "stream": [stream_range(2)],
        "blocks": [block_range(1, range(100, 300))],
        "two streams": [stream_range(3), stream_range(0)],
        "blocks of all": [block_range(stream, range(700, 760)) for stream in range(library.num_streams)],
        "overlapping": [block_range(1, range(10, 60)), block_range(1, range(40, 90)), block_range(1, range(50, 55))],
        "five blocks": [block_range(2, range(500, 505))],
        "the newest blocks": [block_range(1, range(990, 1_000))],
    }


@pytest.mark.parametrize("name", filters(Library(4, 1)))
def test_a_filter_is_exact_and_keeps_its_recall(library: Library, sealed: LibraryIndex, name: str) -> None:
    ranges = filters(library)[name]
    expected = library.exact(library.queries(1)[0], 10**6, ranges)[0]

    limit = min(64, len(expected))
    assert recall(sealed, library, limit=limit, count=20, ids=ranges) >= 0.98
    for query in library.queries(5):
        found, _ = sealed.search(query, 64, ids=ranges)
        assert len(found) == limit and set(found.tolist()) <= set(expected.tolist())


def test_a_limit_of_more_than_the_probed_lists_hold_is_met(library: Library) -> None:
    index = library.index(replace(SMALL, num_probes=1))

    found, _ = index.search(library.queries(1)[0], 3_000)

    assert len(np.unique(found)) == 3_000


def test_an_empty_filter_or_limit_finds_nothing(library: Library, sealed: LibraryIndex) -> None:
    query = library.queries(1)[0]

    for limit, ranges in [(5, []), (5, [block_range(0, range(0))]), (5, [stream_range(99)]), (0, None)]:
        ids, scores = sealed.search(query, limit, ids=ranges)
        assert (ids.dtype, scores.dtype, len(ids), len(scores)) == (np.int64, np.float32, 0, 0)


@pytest.mark.parametrize(
    ("query", "limit"), [(np.ones(H * D + 1), 1), (np.full((H, D), np.inf), 1), (np.ones((H, D)), -1)]
)
def test_a_search_that_makes_no_sense_is_refused(sealed: LibraryIndex, query: Array, limit: int) -> None:
    with pytest.raises(InvalidRecord):
        sealed.search(query, limit)


def test_a_vector_stored_no_more_is_left_out() -> None:
    library = Library(num_streams=2, num_blocks=800)
    index = library.index()
    query = library.queries(1)[0]
    best = index.search(query, 10)[0]
    sealed = np.concatenate([segment.ids for segment in index._state.segments])
    library.gone = set(np.intersect1d(best, sealed).tolist())

    assert library.gone
    assert not set(index.search(query, 10)[0].tolist()) & library.gone


def test_loaded_vectors_of_another_shape_are_told(library: Library) -> None:
    index = library.fill(LibraryIndex(SPEC, lambda ids: library.load(ids)[:, 1:], SMALL))

    with pytest.raises(InvalidRecord, match="were loaded as"):
        index.search(library.queries(1)[0], 5)
