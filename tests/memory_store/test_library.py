"""The library-wide index against exact search: what it finds, what it must not, and what its snapshots survive."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from memory_store import CorruptRecord, InvalidRecord
from memory_store.index import normalised
from memory_store.library import (
    CODECS,
    IdRange,
    LibraryIndex,
    LibrarySettings,
    LibrarySpec,
    best_of_blocks,
    block_range,
    split_ids,
    stream_range,
    vector_ids,
)
from memory_store.library import index as index_module
from memory_store.library import state as state_module
from memory_store.library.segment import build
from memory_store.records import Array

H, D, V = 2, 16, 2
SPEC = LibrarySpec(fingerprint="model", layer=3, num_heads=H, head_dim=D)
SMALL = LibrarySettings(tail_limit=1_000, num_probes=24)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


class Library:
    """Vectors of blocks that lie in clusters, as keys do, and exact search over them."""

    def __init__(self, num_streams: int, num_blocks: int, *, seed: int = 0, num_clusters: int = 100) -> None:
        self.rng = np.random.default_rng(seed)
        self.blocks = range(num_blocks)
        self.num_streams = num_streams
        self.ids = np.concatenate([vector_ids(stream, self.blocks, V) for stream in range(num_streams)])
        centres = self.rng.standard_normal((num_clusters, H, D))
        noise = self.rng.standard_normal((len(self.ids), H, D))
        near = centres[self.rng.integers(num_clusters, size=len(self.ids))] + 0.5 * noise
        self.vectors = normalised(near).reshape(len(self.ids), H * D)
        self.gone: set[int] = set()

    def load(self, ids: Array) -> Array:
        found = self.vectors[np.searchsorted(self.ids, ids)].copy()
        found[[int(vector_id) in self.gone for vector_id in ids]] = np.nan
        return found

    def fill(self, index: LibraryIndex, *, num_blocks: int = 40, first_block: int = 0) -> LibraryIndex:
        """Add all streams side by side, some blocks at a time, as ingests that run together do."""
        for start in range(first_block, len(self.blocks), num_blocks):
            wanted = range(start, min(start + num_blocks, len(self.blocks)))
            for stream in range(self.num_streams):
                ids = vector_ids(stream, wanted, V)
                index.add(ids, self.load(ids))
        return index

    def index(self, settings: LibrarySettings = SMALL) -> LibraryIndex:
        return self.fill(LibraryIndex(SPEC, self.load, settings))

    def queries(self, count: int) -> Array:
        near = self.vectors[self.rng.integers(len(self.ids), size=count)].reshape(count, H, D)
        return near + 0.1 * self.rng.standard_normal((count, H, D))

    def exact(
        self, query: Array, limit: int, ranges: Sequence[IdRange] | None = None, removed: Sequence[IdRange] = ()
    ) -> tuple[Array, Array]:
        """The oracle: every vector scored in float64."""
        within = np.full(len(self.ids), ranges is None)
        for first, last in ranges or ():
            within |= (self.ids >= first) & (self.ids <= last)
        for first, last in removed:
            within &= (self.ids < first) | (self.ids > last)
        unit = query / np.linalg.norm(query, axis=-1, keepdims=True)
        scores = np.round(self.vectors[within].astype(np.float64) @ unit.ravel() / H, 6)
        order = np.lexsort((self.ids[within], -scores))[:limit]
        return self.ids[within][order], scores[order]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(num_streams=4, num_blocks=1_000)


@pytest.fixture(scope="module")
def sealed(library: Library) -> LibraryIndex:
    return library.index()


def recall(
    index: LibraryIndex, library: Library, *, limit: int = 64, count: int = 50, ids: Sequence[IdRange] | None = None
) -> float:
    """Share of the exact best that is found; by score, because vectors may tie."""
    found = 0
    for query in library.queries(count):
        _, expected = library.exact(query, limit, ids)
        _, scores = index.search(query, limit, ids=ids)
        found += int(np.count_nonzero(scores >= expected[-1] - 2e-6)) if len(expected) else 0
    return found / (count * limit)


def test_ids_hold_stream_block_and_ordinal() -> None:
    ids = vector_ids(2**23 - 1, range(2**32 - 2, 2**32), 256)

    streams, blocks, ordinals = split_ids(ids)

    assert ids.dtype == np.int64 and ids[-1] == 2**63 - 1
    assert set(streams.tolist()) == {2**23 - 1}
    assert blocks.tolist() == [2**32 - 2] * 256 + [2**32 - 1] * 256
    assert ordinals.tolist() == [*range(256), *range(256)]
    assert block_range(2**23 - 1, range(2**32 - 2, 2**32)) == (ids[0], ids[-1])


def test_ranges_of_streams_are_disjoint_and_leave_nothing_out() -> None:
    (_, last), (first, _) = stream_range(6), stream_range(7)

    assert first == last + 1
    assert block_range(6, range(5, 5)) == (block_range(6, range(5, 6))[0], block_range(6, range(0, 5))[1])


@pytest.mark.parametrize(
    ("stream", "blocks", "vectors"),
    [
        (2**23, range(1), 1),
        (-1, range(1), 1),
        (0, range(2**32 + 1), 1),
        (0, range(-1, 1), 1),
        (0, range(0, 4, 2), 1),
        (0, range(1), 0),
        (0, range(1), 257),
    ],
)
def test_numbers_that_do_not_fit_are_refused(stream: int, blocks: range, vectors: int) -> None:
    with pytest.raises(InvalidRecord):
        vector_ids(stream, blocks, vectors)


def test_the_best_vector_stands_for_its_block() -> None:
    ids = np.array([block << 8 | ordinal for block, ordinal in [(5, 1), (3, 0), (5, 0), (9, 2), (3, 1)]])

    blocks, scores = best_of_blocks(ids, np.array([9, 8, 7, 6, 5], np.float32), 2)

    assert split_ids(blocks)[1].tolist() == [5, 3]
    assert scores.tolist() == [9, 8]


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


def test_what_a_search_holds_never_changes(library: Library) -> None:
    index = library.index(LibrarySettings(tail_limit=10_000))
    state = index._state
    before = state.tail.ids.copy(), state.tail.vectors.copy()

    index.remove_range(*stream_range(1))
    index.add(vector_ids(9, range(600), V), library.vectors[: 600 * V])

    assert state.tail.alive.all() and len(state.tail.ids) == len(library.ids)
    assert (state.tail.ids == before[0]).all() and (state.tail.vectors == before[1]).all()


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


def test_segments_take_less_memory_than_vectors(library: Library, sealed: LibraryIndex) -> None:
    assert sealed.num_bytes < 0.8 * library.index(LibrarySettings(tail_limit=10_000)).num_bytes


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


def test_a_filter_that_leaves_half_the_rows_has_twice_the_lists_searched() -> None:
    rng = np.random.default_rng(0)
    vectors, ids = rng.standard_normal((4_000, 16)).astype(np.float32), np.arange(4_000)
    segment = build(0, ids, lambda wanted: vectors[wanted], "sq8")
    num_lists, half = segment.index.nlist, np.array([[0, 1_999]])

    for query in rng.standard_normal((20, 16)).astype(np.float32):
        expected, _ = segment.search(query, 10, half, num_lists)
        assert segment.search(query, 10, half, -(-num_lists // 2))[0].tolist() == expected.tolist()


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


def test_a_limit_of_more_than_the_probed_lists_hold_is_met(library: Library) -> None:
    index = library.index(replace(SMALL, num_probes=1))

    found, _ = index.search(library.queries(1)[0], 3_000)

    assert len(np.unique(found)) == 3_000


def test_an_empty_filter_or_limit_finds_nothing(library: Library, sealed: LibraryIndex) -> None:
    query = library.queries(1)[0]

    for limit, ranges in [(5, []), (5, [block_range(0, range(0))]), (5, [stream_range(99)]), (0, None)]:
        ids, scores = sealed.search(query, limit, ids=ranges)
        assert (ids.dtype, scores.dtype, len(ids), len(scores)) == (np.int64, np.float32, 0, 0)


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


def test_a_segment_with_many_removed_is_built_without_them(library: Library) -> None:
    lazy, tidy = library.index(replace(SMALL, dead_share=0.9)), library.index(SMALL)
    for index in (lazy, tidy):
        index.remove_range(*stream_range(1))
        index.remove_range(*stream_range(2))

    assert lazy.num_vectors == tidy.num_vectors == len(library.ids) // 2
    assert tidy.num_bytes < 0.7 * lazy.num_bytes


def test_removing_all_leaves_an_index_that_can_go_on(library: Library) -> None:
    index = library.index()
    for stream in range(library.num_streams):
        index.remove_range(*stream_range(stream))

    assert index.num_vectors == 0
    assert not len(index.search(library.queries(1)[0], 5)[0])
    index.add(vector_ids(9, range(3), 1), library.vectors[:3])
    assert index.search(library.vectors[1], 1)[0].tolist() == [vector_ids(9, range(1, 2), 1)[0]]


@pytest.mark.parametrize("codec", CODECS)
def test_segments_of_one_size_become_one(library: Library, codec: str) -> None:
    merged = library.index(LibrarySettings(tail_limit=200, merge_factor=2, codec=codec))

    assert len(merged._state.segments) <= 6
    assert len(library.index(LibrarySettings(tail_limit=200, merge_factor=50))._state.segments) > 20
    assert merged.num_vectors == len(library.ids)
    assert recall(merged, library) >= 0.98


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
    ("query", "limit"), [(np.ones(H * D + 1), 1), (np.full((H, D), np.inf), 1), (np.ones((H, D)), -1)]
)
def test_a_search_that_makes_no_sense_is_refused(sealed: LibraryIndex, query: Array, limit: int) -> None:
    with pytest.raises(InvalidRecord):
        sealed.search(query, limit)


@pytest.mark.parametrize(
    "settings", [{"tail_limit": 0}, {"codec": "pq"}, {"num_probes": 0}, {"merge_factor": 1}, {"dead_share": 1.0}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidRecord):
        LibrarySettings(**settings)  # type: ignore[arg-type]


def test_a_vector_stored_no_more_is_left_out() -> None:
    library = Library(num_streams=2, num_blocks=800)
    index = library.index()
    query = library.queries(1)[0]
    best = index.search(query, 10)[0]
    sealed = np.concatenate([segment.ids for segment in index._state.segments])
    library.gone = set(np.intersect1d(best, sealed).tolist())

    assert library.gone
    assert not set(index.search(query, 10)[0].tolist()) & library.gone


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


def test_loaded_vectors_of_another_shape_are_told(library: Library) -> None:
    index = library.fill(LibraryIndex(SPEC, lambda ids: library.load(ids)[:, 1:], SMALL))

    with pytest.raises(InvalidRecord, match="were loaded as"):
        index.search(library.queries(1)[0], 5)


def test_the_same_vectors_make_the_same_files(library: Library, tmp_path: Path) -> None:
    for name in ("first", "second"):
        library.index(LibrarySettings(tail_limit=900, merge_factor=3)).save(tmp_path / name)

    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def saved(library: Library, folder: Path, settings: LibrarySettings = SMALL) -> LibraryIndex:
    """Segments, some of their rows removed, and a tail."""
    index = library.index(settings)
    index.remove_range(*block_range(1, range(30, 90)))
    index.save(folder)
    assert index._state.segments and index._state.tail.count
    return index


def same_answers(library: Library, left: LibraryIndex, right: LibraryIndex) -> None:
    assert left.num_vectors == right.num_vectors
    for query in library.queries(10):
        for ranges in (None, [stream_range(1)]):
            for mine, theirs in zip(
                left.search(query, 40, ids=ranges), right.search(query, 40, ids=ranges), strict=True
            ):
                assert mine.tolist() == theirs.tolist()


@pytest.mark.parametrize("codec", CODECS)
def test_a_snapshot_opens_as_what_was_saved(library: Library, tmp_path: Path, codec: str) -> None:
    settings = replace(SMALL, codec=codec)
    index = saved(library, tmp_path, settings)

    opened = LibraryIndex.open(tmp_path, SPEC, library.load, settings)

    assert opened is not None
    assert dict(opened.num_blocks) == dict.fromkeys(range(4), 1_000)
    same_answers(library, index, opened)


def test_an_opened_index_goes_on_from_its_marks(tmp_path: Path) -> None:
    library = Library(num_streams=4, num_blocks=700)
    short = LibraryIndex(SPEC, library.load, SMALL)
    for stream in range(4):
        ids = vector_ids(stream, range(400), V)
        short.add(ids, library.load(ids))
    short.save(tmp_path)

    opened = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)

    assert opened is not None
    library.fill(opened, first_block=opened.num_blocks[0])
    opened.save(tmp_path)
    again = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    assert again is not None and again.num_vectors == len(library.ids)
    same_answers(library, opened, again)
    assert recall(again, library) >= 0.98


def test_an_empty_index_can_be_saved(library: Library, tmp_path: Path) -> None:
    LibraryIndex(SPEC, library.load).save(tmp_path / "new" / "folder")

    opened = LibraryIndex.open(tmp_path / "new" / "folder", SPEC, library.load)

    assert opened is not None and opened.num_vectors == 0 and not opened.num_blocks


def test_a_segment_is_written_once(library: Library, tmp_path: Path) -> None:
    def written(folder: Path) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in folder.glob("*.segment")}

    index = saved(library, tmp_path)
    before = written(tmp_path)
    index.add(vector_ids(8, range(5), 1), library.vectors[:5])
    index.save(tmp_path)
    opened = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    assert opened is not None
    opened.save(tmp_path)

    assert before and written(tmp_path) == before
    assert len(list(tmp_path.glob("*.tail"))) == 1


def test_what_a_killed_save_left_is_no_part_of_the_snapshot(library: Library, tmp_path: Path) -> None:
    index = saved(library, tmp_path)
    for name in ("manifest.new", "0123.segment.new", "0123.segment"):
        (tmp_path / name).write_bytes(b"half")

    opened = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    assert opened is not None
    same_answers(library, index, opened)
    opened.save(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.read_bytes() == b"half"]


@pytest.mark.parametrize("step", ["write_file", "sync_folder"])
def test_a_save_that_fails_leaves_the_last_one(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    index = saved(library, tmp_path)
    index.add(vector_ids(8, range(9), V), library.vectors[: 9 * V])

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(f"memory_store.library.snapshot.{step}", full)
        with pytest.raises(OSError, match="no space left"):
            index.save(tmp_path)
    before = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    index.save(tmp_path)
    after = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)

    assert before is not None and 8 not in before.num_blocks
    assert after is not None and after.num_blocks[8] == 9


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (replace(SPEC, fingerprint="other"), SMALL),
        (replace(SPEC, layer=4), SMALL),
        (replace(SPEC, num_heads=D, head_dim=H), SMALL),
        (replace(SPEC, head_dim=D + 1), SMALL),
        (SPEC, replace(SMALL, codec="rabitq")),
    ],
)
def test_a_snapshot_of_another_library_is_not_opened(
    library: Library, tmp_path: Path, spec: LibrarySpec, settings: LibrarySettings
) -> None:
    saved(library, tmp_path)

    assert LibraryIndex.open(tmp_path, spec, library.load, settings) is None


def test_a_snapshot_of_a_newer_format_is_not_opened(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("memory_store.library.snapshot.FORMAT", 2)
        saved(library, tmp_path)
        assert LibraryIndex.open(tmp_path, SPEC, library.load, SMALL) is not None

    assert LibraryIndex.open(tmp_path, SPEC, library.load, SMALL) is None


def test_a_snapshot_with_a_missing_file_is_not_opened(library: Library, tmp_path: Path) -> None:
    assert LibraryIndex.open(tmp_path / "nowhere", SPEC, library.load, SMALL) is None
    saved(library, tmp_path)
    for path in list(tmp_path.iterdir()):
        value = path.read_bytes()
        path.unlink()
        assert LibraryIndex.open(tmp_path, SPEC, library.load, SMALL) is None, path.name
        path.write_bytes(value)
    assert LibraryIndex.open(tmp_path, SPEC, library.load, SMALL) is not None


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    library = Library(num_streams=2, num_blocks=150)
    settings = LibrarySettings(tail_limit=250)
    library.index(settings).save(tmp_path)
    rng = np.random.default_rng(1)

    kinds = set()
    for path in sorted(tmp_path.iterdir()):
        value = path.read_bytes()
        kinds.add(path.suffix)
        places = {*range(min(64, len(value))), len(value) - 1, *rng.integers(len(value), size=100).tolist()}
        damaged = [value[:at] + bytes([value[at] ^ (1 << at % 8)]) + value[at + 1 :] for at in places]
        for changed in [*damaged, value[:-1], value[: len(value) // 2], value + b"\0", b""]:
            path.write_bytes(changed)
            assert LibraryIndex.open(tmp_path, SPEC, library.load, settings) is None, path.name
        path.write_bytes(value)
    assert kinds == {"", ".segment", ".tail"}
    assert LibraryIndex.open(tmp_path, SPEC, library.load, settings) is not None


def test_a_rebuilt_index_replaces_a_damaged_file(library: Library, tmp_path: Path) -> None:
    index = saved(library, tmp_path)
    segment = next(tmp_path.glob("*.segment"))
    segment.write_bytes(segment.read_bytes()[:-1])

    rebuilt = library.index()
    rebuilt.remove_range(*block_range(1, range(30, 90)))
    rebuilt.save(tmp_path)

    opened = LibraryIndex.open(tmp_path, SPEC, library.load, SMALL)
    assert opened is not None
    same_answers(library, index, opened)


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
