"""Frames: the same bytes for the same seed, and events are to be seen when and where the script says, nowhere else."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.media import open_source
from cacheflow_ray.world import Canvas, Difficulty, Script, film, frame, frames, labels, make_questions, make_script
from cacheflow_ray.world.render import box_of, shot_of
from cacheflow_ray.world.scenes import Look, make_scenes
from cacheflow_ray.world.script import Event

HARD = Difficulty.level(1.0)


def digest(script: Script, indices: list[int]) -> str:
    shown = {index: frame(script, index).tobytes() for index in indices}
    return hashlib.sha256(b"".join(shown[index] for index in sorted(shown))).hexdigest()


def inside(script: Script, event: Event, index: int) -> tuple[slice, slice]:
    left, top, right, bottom = box_of(event.centre(index), event.size, shot_of(script, index), Canvas())
    return slice(max(top, 0), bottom), slice(max(left, 0), right)


def test_a_frame_does_not_depend_on_which_frames_were_rendered_before_or_by_which_process() -> None:
    indices = list(range(0, 36_000, 1_499))
    script = make_script(11, 36_000, HARD)
    forward = digest(script, indices)
    random.Random(1).shuffle(indices)
    assert digest(script, indices) == forward
    program = f"from tests.world.test_render import *\nprint(digest(make_script(11, 36_000, HARD), {sorted(indices)}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [forward]


def test_the_same_seed_gives_the_same_script_and_another_seed_another() -> None:
    assert make_script(4, 500, HARD) == make_script(4, 500, HARD)
    assert make_script(4, 500, HARD).events != make_script(5, 500, HARD).events
    assert not np.array_equal(frame(make_script(4, 9, HARD), 0), frame(make_script(5, 9, HARD), 0))


def test_frames_are_the_single_frames_in_order_at_their_times() -> None:
    script = make_script(6, 40, fps=4.0)
    shown = list(frames(script, start=7, stop=99))
    assert [one.seq for one in shown] == list(range(7, 40))
    for one in shown:
        assert one.timestamp_s == one.seq / 4
        assert np.array_equal(one.image, frame(script, one.seq))


def test_truth_ranges_show_the_thing_and_no_other_frame_does() -> None:
    script = make_script(8, 300, HARD)
    asked = {event for question in make_questions(script) for event in question.events}
    assert len(asked) > 15
    for event in asked:
        without = replace(script, events=tuple(other for other in script.events if other != event))
        for index in range(event.start, event.stop):
            here = inside(script, event, index)
            changed = np.abs(frame(script, index).astype(int) - frame(without, index)).max(axis=-1) > 12
            assert changed[here].mean() > 0.25
            changed[here] = False
            assert not changed.any()
        for index in (event.start - 1, event.stop):
            if 0 <= index < script.num_frames:
                assert np.array_equal(frame(script, index), frame(without, index))


def test_no_thing_covers_another() -> None:
    for seed in range(3):
        script = make_script(seed, 400, replace(HARD, density=1.3, at_once=4))
        crowd = [len(script.active(index)) for index in range(script.num_frames)]
        assert max(crowd) == 4
        for index in range(script.num_frames):
            taken = np.zeros((112, 112), int)
            for event in script.active(index):
                rows, columns = inside(script, event, index)
                # Boxes may touch by a few pixels at their corners, where shapes do not reach.
                taken[rows.start + 3 : rows.stop - 3, columns.start + 3 : columns.stop - 3] += 1
            assert taken.max() <= 1


def test_active_finds_what_a_search_through_all_events_finds() -> None:
    script = make_script(9, 900, HARD)
    for index in range(script.num_frames):
        assert script.active(index) == tuple(e for e in script.events if e.start <= index < e.stop)


def test_density_fills_a_clip_with_a_hundred_distractors_and_a_long_stream_with_thousands() -> None:
    clip = make_script(1, 128, replace(HARD, density=1.2, duration_s=(1.0, 3.0)))
    stream = make_script(1, 36_000, Difficulty.level(0.5))
    for script, least in ((clip, 100), (stream, 5000)):
        needles = {needle.thing.pair for needle in script.needles}
        assert sum(event.thing.pair not in needles for event in script.events) >= least
        assert not {event.thing.pair for event in script.events} & set(script.absent)


def test_light_noise_shake_and_drift_each_move_a_still_picture() -> None:
    still = Look(noise=0, drift=0, light=0, shake=0, scene_s=None, rooms=1)
    for look in (
        replace(still, noise=3),
        replace(still, drift=0.01),
        replace(still, light=0.1),
        replace(still, shake=0.02),
    ):
        script = make_script(3, 30, Difficulty(density=0, needles=1, look=look))
        assert not np.array_equal(frame(script, 0), frame(script, 29))
    script = replace(make_script(3, 30, Difficulty(look=still)), events=())
    assert all(np.array_equal(frame(script, 0), frame(script, index)) for index in range(30))


def test_slow_drift_hardly_changes_neighbours_but_adds_up() -> None:
    look = Look(noise=0, drift=0.003, light=0, shake=0, scene_s=None, rooms=1)
    script = replace(make_script(2, 200, Difficulty(look=look)), events=())
    shown = [frame(script, index).astype(float) for index in (0, 1, 60)]
    assert 0 < np.abs(shown[1] - shown[0]).mean() < 0.25 * np.abs(shown[2] - shown[0]).mean()


def test_cuts_lead_to_another_room_and_rooms_come_back() -> None:
    scenes = make_scenes(5, 36_000, 1.0, Look(scene_s=40, rooms=3))
    assert 400 < len(scenes) < 1400
    assert len({scene.room for scene in scenes}) == 3
    assert all(one.room != other.room for one, other in pairwise(scenes))
    assert len(make_scenes(5, 36_000, 1.0, Look(scene_s=None))) == 1


@pytest.mark.parametrize("canvas", [Canvas(width=448, height=256), Canvas(width=112, height=112, aspect=1.75)])
def test_wide_pictures_show_things_where_the_labels_say(canvas: Canvas) -> None:
    script = make_script(8, 60, HARD)
    bare = replace(script, events=())
    for index in range(0, 60, 7):
        image = frame(script, index, canvas)
        assert image.shape == (canvas.height, canvas.width, 3)
        changed = np.abs(image.astype(int) - frame(bare, index, canvas)).max(axis=-1) > 12
        for present in labels(script, index, canvas).things:
            left, top, right, bottom = (max(edge, 0) for edge in present.box)
            # A square thing is as wide as high in the filmed scene.
            squeeze = canvas.width / canvas.height / canvas.filmed_aspect
            assert abs((right - left) - (bottom - top) * squeeze) <= 4
            assert changed[top:bottom, left:right].mean() > 0.25
            changed[top:bottom, left:right] = False
        assert not changed.any()


def test_a_film_is_real_video_of_the_same_pictures(tmp_path: Path) -> None:
    script, canvas = make_script(12, 24, Difficulty.level(0.3), fps=4.0), Canvas(width=192, height=112)
    steps: list[tuple[int, int]] = []
    film(script, tmp_path / "world.mp4", canvas, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i + 1, 24) for i in range(24)]
    with open_source(tmp_path / "world.mp4", fps=None) as source:
        assert source.info.codec == "h264"
        decoded = list(source)
    assert [one.timestamp_s for one in decoded] == pytest.approx([i / 4 for i in range(24)], abs=1e-3)
    for one in decoded:
        assert np.abs(one.image.astype(int) - frame(script, one.seq, canvas)).mean() < 6


def test_what_makes_no_sense_is_refused() -> None:
    script = make_script(0, 5)
    for attempt in (
        lambda: frame(script, 5),
        lambda: frame(script, -1),
        lambda: make_script(-1, 5),
        lambda: make_script(0, 0),
        lambda: make_script(0, 5, fps=0.0),
        lambda: Canvas(width=8),
        lambda: Canvas(aspect=9.0),
        lambda: Look(shake=0.5),
        lambda: Difficulty(size=(0.2, 0.5)),
        lambda: Difficulty.level(1.5),
    ):
        with pytest.raises(InvalidConfig):
            attempt()
