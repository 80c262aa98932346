"""Search over all streams: as brute force, kept up with commits, deletions and retention, and over reopening."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from memory_store import LibraryHit, Retention, Store, TimeRange
from memory_store.errors import InvalidRecord
from memory_store.everywhere import LibrarySearch
from memory_store.library import LibraryIndex, LibrarySettings
from tests.memory_store.conformance import D, H, S, V, brute_force, fill, make_block, make_commit, make_record

COUNTS = {"a": 5, "b": 7, "c": 3}


def block(stream_id: str, at: int) -> object:
    """Another summary in every block of every stream."""
    rng = np.random.default_rng((ord(stream_id), at))
    summary = rng.standard_normal((S, V, H, D)).astype(np.float32)
    return make_block(at, stream_id=stream_id, summary=summary)


def grow(store: Store, stream_id: str, first: int, stop: int) -> None:
    store.create_stream(make_record(stream_id, settings={"window_blocks": 1}))
    blocks = [block(stream_id, at) for at in range(first, stop)]
    store.commit([make_commit(*blocks, num_blocks=stop, stream_id=stream_id)])


def expected(queries: np.ndarray, there: dict[str, list[int]], limit: int) -> list[list[tuple[str, int]]]:
    names = [(stream_id, at) for stream_id, blocks in there.items() for at in blocks]
    scores = brute_force([block(*name) for name in names], queries, per_head=False)
    return [[names[at] for at in np.argsort(-row)[:limit]] for row in scores]


def found(store: Store, queries: np.ndarray, limit: int = 20, **options: object) -> list[list[tuple[str, int]]]:
    ranked = store.library.search(queries, fingerprint="model-a", limit=limit, **options)
    return [[(moment.stream_id, moment.block_idx) for moment in row] for row in ranked]


@pytest.fixture
def queries() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((S, H, D)).astype(np.float32)


@pytest.mark.parametrize("shards", [1, 3])
def test_all_streams_are_ranked_as_by_brute_force(tmp_path: Path, queries: np.ndarray, shards: int) -> None:
    with Store.open(tmp_path, shards=shards) as store:
        for stream_id, count in COUNTS.items():
            grow(store, stream_id, 0, count)
        everything = {stream_id: list(range(count)) for stream_id, count in COUNTS.items()}
        assert found(store, queries) == expected(queries, everything, 20)
        assert found(store, queries, limit=4) == expected(queries, everything, 4)
        (best, *_), _ = store.library.search(queries, fingerprint="model-a", limit=1)
        own = brute_force([block(best.stream_id, best.block_idx)], queries, per_head=False)[0, 0]
        assert best == LibraryHit(
            stream_id=best.stream_id, block_idx=best.block_idx, score=pytest.approx(own, abs=2e-6)
        )


def test_streams_and_times_narrow_it(tmp_path: Path, queries: np.ndarray) -> None:
    with Store.open(tmp_path) as store:
        for stream_id, count in COUNTS.items():
            grow(store, stream_id, 0, count)
        assert found(store, queries, streams=["a", "c"]) == expected(queries, {"a": [*range(5)], "c": [*range(3)]}, 20)
        narrow = TimeRange(start_s=1.0, end_s=2.2)
        assert found(store, queries, time_range=narrow) == expected(queries, {name: [1, 2] for name in COUNTS}, 20)
        assert found(store, queries, time_range=TimeRange(start_s=99)) == [[], []]
        assert found(store, queries, streams=["none"]) == [[], []]


def test_it_keeps_up_with_what_comes_and_goes(tmp_path: Path, queries: np.ndarray) -> None:
    with Store.open(tmp_path) as store:
        grow(store, "a", 0, 4)
        grow(store, "b", 0, 3)
        assert len(found(store, queries)[0]) == 7
        grow(store, "a", 4, 6)
        grow(store, "c", 0, 2)
        there = {"a": [*range(6)], "b": [*range(3)], "c": [0, 1]}
        assert found(store, queries) == expected(queries, there, 20)
        store.delete_stream("b")
        store.upkeep.set_retention("a", Retention(max_blocks=2, pinned=(TimeRange(start_s=1.0, end_s=1.1),)))
        store.upkeep.housekeep()
        there = {"a": [1, 5], "c": [0, 1]}
        assert found(store, queries) == expected(queries, there, 20)
        grow(store, "b", 0, 2)
        assert found(store, queries) == expected(queries, there | {"b": [0, 1]}, 20)


def test_a_reopened_store_goes_on_from_the_snapshot(
    tmp_path: Path, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path) as store:
        grow(store, "a", 0, 6)
        grow(store, "b", 0, 2)
        found(store, queries)
    with Store.open(tmp_path) as store:  # nobody searches, so nothing is saved
        grow(store, "a", 6, 8)
        store.delete_stream("b")
    added: list[int] = []
    plain = LibraryIndex.add
    monkeypatch.setattr(LibraryIndex, "add", lambda self, ids, rows: (added.append(len(ids)), plain(self, ids, rows)))
    for read_only in (False, True):
        added.clear()
        with Store.open(tmp_path, read_only=read_only) as store:
            assert found(store, queries) == expected(queries, {"a": [*range(8)]}, 20)
        assert added == ([] if read_only else [2 * V, 2 * V])  # per layer: the two new blocks, no other


def test_a_damaged_or_foreign_snapshot_is_made_anew(tmp_path: Path, queries: np.ndarray) -> None:
    with Store.open(tmp_path) as store:
        grow(store, "a", 0, 6)
        before = found(store, queries)
    files = [path for path in tmp_path.rglob("library/*/*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)
    with Store.open(tmp_path) as store:
        assert found(store, queries) == before


def test_a_snapshot_ahead_of_its_store_is_made_anew(tmp_path: Path, queries: np.ndarray) -> None:
    with Store.open(tmp_path / "ahead") as store:
        grow(store, "a", 0, 6)
        found(store, queries)
    with Store.open(tmp_path / "behind") as store:
        grow(store, "a", 0, 3)
    (tmp_path / "ahead" / "shard-0000" / "library").rename(tmp_path / "behind" / "shard-0000" / "library")
    with Store.open(tmp_path / "behind") as store:
        assert found(store, queries) == expected(queries, {"a": [0, 1, 2]}, 20)


def test_sealed_segments_find_the_same(tmp_path: Path, queries: np.ndarray) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 1)
        grow(store, "a", 0, 40)
        library = LibrarySearch(store._shards, [tmp_path / "elsewhere"], LibrarySettings(tail_limit=16))
        ranked = library.search(queries, fingerprint="model-a", limit=8, streams=["a"])
        names = [[(moment.stream_id, moment.block_idx) for moment in row] for row in ranked]
        assert names == expected(queries, {"a": [*range(40)]}, 8)
        by_head = library.search(queries, fingerprint="model-a", limit=8, streams=["a"], per_head=True)
        scores = brute_force([block("a", at) for at in range(40)], queries, per_head=True)
        assert [[hit.block_idx for hit in row] for row in by_head] == np.argsort(-scores)[:, :8].tolist()


def test_other_models_and_shapes_are_kept_apart(tmp_path: Path, queries: np.ndarray) -> None:
    with Store.open(tmp_path) as store:
        grow(store, "a", 0, 2)
        assert store.library.search(queries, fingerprint="model-b", limit=3) == [[], []]
        with pytest.raises(InvalidRecord, match="not like the summaries"):
            store.library.search(queries[:, :, :4], fingerprint="model-a", limit=3)
        with pytest.raises(InvalidRecord, match="finite"):
            store.library.search(queries * np.nan, fingerprint="model-a", limit=3)


def test_searches_beside_commits_lose_nothing(tmp_path: Path, queries: np.ndarray) -> None:
    with Store.open(tmp_path) as store:
        grow(store, "a", 0, 1)
        stop = threading.Event()

        def search() -> None:
            while not stop.is_set():
                found(store, queries)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for at in range(1, 60):
            grow(store, "a", at, at + 1)
        stop.set()
        for thread in threads:
            thread.join()
        assert found(store, queries, limit=100) == expected(queries, {"a": [*range(60)]}, 100)


def test_blocks_of_many_vectors_do_not_crowd_others_out(tmp_path: Path, queries: np.ndarray) -> None:
    near = np.repeat(queries[:, None], 40, axis=1)
    with Store.open(tmp_path) as store:
        store.create_stream(make_record("a"))
        blocks = [make_block(at, stream_id="a", summary=near * (1 if at < 3 else -1)) for at in range(6)]
        store.commit([make_commit(*blocks, num_blocks=6, stream_id="a")])
        assert [sorted(at for _, at in row) for row in found(store, queries, limit=5)] == [[0, 1, 2, 3, 4]] * 2
