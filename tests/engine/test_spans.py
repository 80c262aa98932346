"""Which blocks are encoded to have others back, and which of them come out as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheflow_ray.engine.spans import Look, Reach, Span, look_into, plan_spans
from memory_store import BlockNotFound, Retention, Store, TimeRange
from tests.memory_store.conformance import fill

REACH = Reach(warm_up=2, window=4, num_layers=3)


def without(*missing: int, first: int = 0) -> Look:
    def look(blocks: range) -> tuple[range, frozenset[int]]:
        there = range(max(first, blocks.start), blocks.stop)
        return there, frozenset(missing) & frozenset(there)

    return look


def spans(wanted: list[int], look: Look, reach: Reach = REACH) -> list[Span]:
    return list(plan_spans(wanted, reach, look))


ALL = tuple(range(100))


def test_a_warm_up_stands_before_each_block() -> None:
    (span,) = spans([50], without(*ALL))
    assert span == Span(first=48, encode=(48, 49, 50), wanted=(50,), exact=frozenset())
    assert span.blocks == range(48, 51)


def test_the_most_important_comes_first_and_near_ones_go_together() -> None:
    found = spans([30, 60, 63, 10, 8], without(*ALL))
    assert [span.wanted for span in found] == [(30,), (60, 63), (8, 10)]
    assert found[1].encode == (58, 59, 60, 61, 62, 63)
    assert found[2].encode == (6, 7, 8, 9, 10)


def test_kept_kv_is_read_as_far_as_the_window_reaches() -> None:
    (span,) = spans([50], without(48, 50))
    assert span == Span(first=44, encode=(48, 50), wanted=(50,), exact=frozenset({50}))
    (span,) = spans([50], without(45, 48, 50))  # 46 and 47 are behind a gap: the window is not whole
    assert (span.first, span.exact) == (46, frozenset())
    lossy = Reach(warm_up=2, window=4, num_layers=3, lossless=False)
    assert spans([50], without(48, 50), lossy)[0].exact == frozenset()
    assert spans([2], without(*ALL), lossy)[0].exact == {2}, "nothing kept goes into it"


@pytest.mark.parametrize(("warm_up", "exact"), [(7, False), (8, True)])
def test_a_warm_up_as_long_as_the_layers_reach_is_exact(warm_up: int, exact: bool) -> None:
    (span,) = spans([50], without(*ALL), Reach(warm_up=warm_up, window=4, num_layers=3))
    assert bool(span.exact) is exact


def test_the_start_of_the_stream_is_a_whole_warm_up() -> None:
    (span,) = spans([2], without(*ALL))
    assert span == Span(first=0, encode=(0, 1, 2), wanted=(2,), exact=frozenset({2}))


def test_what_was_deleted_shortens_the_warm_up() -> None:
    (span,) = spans([50], without(*ALL, first=49))
    assert span == Span(first=49, encode=(49, 50), wanted=(50,), exact=frozenset())


def test_a_store_tells_what_there_still_is(tmp_path: Path) -> None:
    with Store.open(tmp_path / "data") as store:
        fill(store, 12)
        pins = tuple(TimeRange(start_s=at, end_s=at + 0.5) for at in (0.0, 3.0))
        store.set_retention("cam", Retention(max_blocks=6, summary_only_after_s=0.0, pinned=pins))
        store.upkeep.housekeep()  # 0 and 3 are pinned, 1, 2 and 4 to 7 deleted, 8 to 10 without KV
        look = look_into(store, "cam")
        assert look(range(1, 11)) == (range(8, 11), frozenset({8, 9, 10}))
        assert look(range(4)) == (range(3, 4), frozenset())
        with pytest.raises(BlockNotFound):
            look(range(4, 6))
