"""Things differ from one another at the sizes they are shown in."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world import COLOURS, DIGITS, SHAPES, Thing
from cacheflow_ray.world.sprites import sprite


def drawn(colour: str, shape: str, digit: int, grey: float = 110) -> npt.NDArray[np.float32]:
    picture = sprite(Thing(colour=colour, shape=shape, digit=digit), 30, 30)
    assert picture.paint.shape == (30, 30, 3) and picture.behind.shape == (30, 30, 1)
    assert picture.behind.min() >= 0 and picture.behind.max() <= 1
    return grey * picture.behind + picture.paint


def difference(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Share of pixels that differ clearly."""
    return float((np.abs(one - other).max(axis=-1) > 60).mean())


@pytest.mark.parametrize("colour", COLOURS)
def test_shapes_and_digits_of_one_color_differ(colour: str) -> None:
    for one, other in combinations(SHAPES, 2):
        assert difference(drawn(colour, one, 3), drawn(colour, other, 3)) > 0.1, (one, other)
    for shape in SHAPES:
        for first, second in combinations(range(len(DIGITS)), 2):
            assert difference(drawn(colour, shape, first), drawn(colour, shape, second)) > 0.004, (shape, first, second)


def test_colors_differ_and_stand_out_from_every_brightness_a_wall_can_have() -> None:
    for shape in SHAPES:
        for one, other in combinations(COLOURS, 2):
            assert difference(drawn(one, shape, 8), drawn(other, shape, 8)) > 0.15, (shape, one, other)
        for colour in COLOURS:
            for grey in (45.0, 110.0, 175.0):
                wall = np.full((30, 30, 3), grey, np.float32)
                assert difference(drawn(colour, shape, 8, grey), wall) > 0.2, (shape, colour, grey)


def test_a_thing_the_world_does_not_know_is_refused() -> None:
    for colour, shape, digit in (("pink", "star", 1), ("red", "cube", 1), ("red", "star", 10)):
        with pytest.raises(InvalidConfig):
            Thing(colour=colour, shape=shape, digit=digit)
