"""Labels say what a frame shows, of scripts and of frames made for training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world import (
    COLOURS,
    DIGITS,
    FAMILIES,
    PLACES,
    SHAPES,
    Difficulty,
    labels,
    make_script,
    random_room,
    train_frame,
)
from cacheflow_ray.world.sprites import INKS


def test_labels_of_a_script_are_its_active_events() -> None:
    script = make_script(3, 200, Difficulty.level(0.8))
    for index in range(script.num_frames):
        shown = labels(script, index)
        events = script.active(index)
        assert [present.thing for present in shown.things] == [event.thing for event in events]
        assert FAMILIES[shown.family] == script.scene(index).room.family
        for present, event in zip(shown.things, events, strict=True):
            assert (COLOURS[present.colour], SHAPES[present.shape]) == event.thing.pair
            if event.place:
                assert PLACES[present.place] == event.place
            x, y = event.centre(index)
            row, column = divmod(present.cell, 4)
            # Half a pixel of rounding and the camera's shake may carry a centre over a cell's edge.
            assert abs(4 * y - row - 0.5) < 0.6 and abs(4 * x - column - 0.5) < 0.6


def test_cover_is_the_share_of_each_cell_that_the_box_covers() -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        for present in train_frame(rng)[1].things:
            left, top, right, bottom = present.box
            mask = np.zeros((112, 112))
            mask[max(top, 0) : bottom, max(left, 0) : right] = 1
            np.testing.assert_allclose(present.cover, mask.reshape(4, 28, 4, 28).mean(axis=(1, 3)), atol=1e-6)


def test_a_training_frame_shows_each_thing_in_its_colour_within_its_box() -> None:
    rng = np.random.default_rng(6)
    for _ in range(60):
        image, shown = train_frame(rng)
        for present in shown.things:
            left, top, right, bottom = present.box
            pixels = image[max(top, 0) : bottom, max(left, 0) : right].reshape(-1, 3).astype(float)
            fill = np.array(INKS[present.thing.colour][0], float)
            # Light and noise move a colour by up to some 20 %.
            assert (np.abs(pixels - fill).max(axis=1) < 70).mean() > 0.1


def test_training_frames_cover_every_class_and_every_number_of_things() -> None:
    rng = np.random.default_rng(7)
    room = random_room(rng)
    seen = [train_frame(rng, room=room)[1] for _ in range(600)]
    assert {len(shown.things) for shown in seen} == set(range(7))
    things = [present for shown in seen for present in shown.things]
    for values, classes in (
        ([present.colour for present in things], len(COLOURS)),
        ([present.shape for present in things], len(SHAPES)),
        ([present.thing.digit for present in things], len(DIGITS)),
        ([present.place for present in things], len(PLACES)),
    ):
        counts = Counter(values)
        assert set(counts) == set(range(classes))
        assert max(counts.values()) < 2 * min(counts.values())
    assert {present.cell for present in things} == set(range(16))
    assert {random_room(rng).family for _ in range(200)} == set(FAMILIES)


def test_the_same_generator_gives_the_same_training_frames() -> None:
    one, other = (train_frame(np.random.default_rng(8)) for _ in range(2))
    assert np.array_equal(one[0], other[0]) and [p.thing for p in one[1].things] == [p.thing for p in other[1].things]


def test_more_things_than_places_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="9"):
        train_frame(np.random.default_rng(0), max_things=10)
