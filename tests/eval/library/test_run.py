"""Needles in a library: what is sought is in one video alone, and the bundled model finds it among many."""

from __future__ import annotations

import pytest

from cacheflow_ray.eval.library.corpus import make_library
from cacheflow_ray.eval.library.run import LibraryPlan, Row, run_library
from cacheflow_ray.models import load_model


def measured(*videos: int, frames: int) -> list[Row]:
    model = load_model("bundled:world")
    plan = LibraryPlan(
        videos=videos,
        frames=frames,
        settings=model.recommended.stream_settings(None),
        ask=model.recommended.ask_options(None),
    )
    return list(run_library(model, plan, note=lambda line: None))


def test_a_needle_is_in_its_own_video_alone() -> None:
    scripts, owners = make_library(40, 32)
    assert len(owners) > 25
    for pair, owner in owners.items():
        assert [at for at, script in enumerate(scripts) if script.appearances(pair)] == [owner]
        assert pair in [needle.thing.pair for needle in scripts[owner].needles]
    others = {event.thing.pair for script in scripts for event in script.events} - owners.keys()
    crowded = [pair for pair in others if sum(bool(script.appearances(pair)) for script in scripts) > 3]
    assert len(crowded) > 20  # look-alikes are everywhere


def test_needles_are_found_among_twenty_videos() -> None:
    (row,) = measured(20, frames=24)
    assert (row.videos, row.n > 30) == (20, True)
    assert row.recall_k >= 0.95
    assert row.same == 1.0  # the index ranks as a scan of every stream does
    assert row.stream_1 >= row.recall_1 > 0.8
    assert row.right > 0.8
    assert 0 < row.index.p50 < row.search.p50 <= row.search.p95


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("videos", [100, 300])
def test_needles_are_found_among_hundreds_of_videos(videos: int) -> None:
    (row,) = measured(videos, frames=64)
    print(row)
    assert row.recall_k >= 0.95
    assert row.same == 1.0
