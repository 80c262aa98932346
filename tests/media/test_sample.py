from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from cacheflow_ray.media.sample import Grid

increasing = st.lists(st.integers(0, 100_000), unique=True, max_size=60).map(lambda ms: [m / 1000 for m in sorted(ms)])


def plain_sampling(times: list[float], fps: float) -> list[float]:
    """Walk along the grid point by point, as the rule is told."""
    taken: list[float] = []
    point = 0
    for time in times:
        if (time - times[0]) * fps + 1e-6 < point:
            continue
        taken.append(time)
        while (time - times[0]) * fps + 1e-6 >= point:
            point += 1
    return taken


@given(increasing, st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.0, 25.0]))
@example([0.0, 0.9, 1.0, 1.1, 4.7, 4.8, 5.0], 1.0)
def test_takes_what_the_plain_rule_takes(times: list[float], fps: float) -> None:
    grid = Grid(fps)
    assert [t for t in times if grid.takes(t)] == plain_sampling(times, fps)


@given(increasing)
def test_without_a_rate_every_picture_is_taken(times: list[float]) -> None:
    grid = Grid(None)
    assert all(grid.takes(t) for t in times)


def test_a_gap_gives_one_picture_and_no_duplicates() -> None:
    grid = Grid(1.0)
    assert [grid.takes(t) for t in (0.0, 0.5, 7.3, 7.4, 8.0)] == [True, False, True, False, True]


def test_sampling_at_the_own_rate_survives_the_rounding_of_a_container() -> None:
    rounded = [math.floor(i / 30 * 1000 + 0.5) / 1000 for i in range(300)]
    grid = Grid(30.0, tick_s=1e-3)
    assert all(grid.takes(t) for t in rounded)


def test_coarse_ticks_do_not_let_pictures_pass_early() -> None:
    grid = Grid(10.0, tick_s=1 / 25)
    assert [i for i in range(11) if grid.takes(i / 25)] == [0, 3, 5, 8, 10]
