"""What is to be seen in a frame, for training a vision tower: of scripts, and of frames made for nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world.render import Box, Image, Placed, box_of, expose, placed, shot_of
from cacheflow_ray.world.scenes import Shot
from cacheflow_ray.world.script import Script
from cacheflow_ray.world.textures import FAMILIES, MARGIN, Room
from cacheflow_ray.world.things import COLOURS, DIGITS, LINES, PLACES, SHAPES, Canvas, Thing, nearest_place

#: Rows and columns of the token grid.
GRID = 4

#: A token shows a thing that covers this much of its cell.
COVERED = 0.2

#: Different rooms that training frames are set in, per family.
_TRAIN_ROOMS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A thing in a frame, in words and as class numbers.

    Args:
        colour, shape: indices into COLOURS and SHAPES; the digit is `thing.digit`.
        place: index into PLACES of the nearest place, for moving things too.
        cell: GRID * row + column of the token cell that holds its centre.
        box: pixels (left, top, right, bottom); may reach beyond the frame.
        cover: float32 [GRID, GRID]: the share of each token cell that the box covers.
    """

    thing: Thing
    colour: int
    shape: int
    place: int
    cell: int
    box: Box
    cover: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What is in a frame. `family`: index into FAMILIES of its background."""

    things: tuple[Present, ...]
    family: int


def labels(script: Script, index: int, canvas: Canvas | None = None) -> Labels:
    """What `render.frame` shows. Raises InvalidConfig if the script has no such frame."""
    return _labels(shot_of(script, index), placed(script, index), canvas or Canvas())


def train_frame(
    rng: np.random.Generator, canvas: Canvas | None = None, *, max_things: int = 6, room: Room | None = None
) -> tuple[Image, Labels]:
    """A random frame with 0..max_things things at different places: any colour, shape and digit, any size and room.

    Args:
        rng: the only source of chance; it is advanced.
        max_things: 0..9.
        room: where it is set; None: a random one (drawing its walls takes most of the time).

    Returns:
        uint8 [height, width, 3] and what is in it.

    Raises:
        InvalidConfig: more things than places.
    """
    if not 0 <= max_things <= len(PLACES):
        raise InvalidConfig(f"max_things must be 0..{len(PLACES)}, not {max_things}", key="max_things")
    canvas = canvas or Canvas()
    shot = _random_shot(rng, room or random_room(rng))
    places = rng.permutation(len(PLACES))[: int(rng.integers(0, max_things + 1))]
    things = [_random_thing(int(place), rng) for place in places]
    return expose(shot, things, canvas), _labels(shot, things, canvas)


def random_room(rng: np.random.Generator) -> Room:
    """One of the rooms training frames are set in, all families equally likely."""
    return Room(family=FAMILIES[int(rng.integers(len(FAMILIES)))], seed=int(rng.integers(_TRAIN_ROOMS)))


def _random_shot(rng: np.random.Generator, room: Room) -> Shot:
    """All the light, noise and movement a script can have, and some more."""
    slide = rng.uniform(-(MARGIN - 0.03), MARGIN - 0.03, 2)
    jolt = rng.uniform(-0.015, 0.015, 2)
    gain = rng.uniform(0.86, 1.14) * rng.uniform(0.97, 1.03, 3)
    column, row, mirrored = rng.integers(0, (64, 64, 2))
    return Shot(
        room=room,
        slide=(float(slide[0]), float(slide[1])),
        jolt=(float(jolt[0]), float(jolt[1])),
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        noise=(float(rng.uniform(0, 8)), int(column), int(row), bool(mirrored)),
    )


def _random_thing(place: int, rng: np.random.Generator) -> Placed:
    """Sizes a little beyond a script's, so that the extremes are no edge cases."""
    thing = Thing(
        colour=COLOURS[int(rng.integers(len(COLOURS)))],
        shape=SHAPES[int(rng.integers(len(SHAPES)))],
        digit=int(rng.integers(len(DIGITS))),
    )
    size = float(rng.uniform(0.24, 0.34))
    jitter = min(0.04, LINES[0] - size / 2)
    x, y = LINES[place % 3] + rng.uniform(-jitter, jitter), LINES[place // 3] + rng.uniform(-jitter, jitter)
    return thing, (float(x), float(y)), size


def _labels(shot: Shot, things: Iterable[Placed], canvas: Canvas) -> Labels:
    present = tuple(
        _present(thing, centre, box_of(centre, size, shot, canvas), canvas) for thing, centre, size in things
    )
    return Labels(things=present, family=FAMILIES.index(shot.room.family))


def _present(thing: Thing, centre: tuple[float, float], box: Box, canvas: Canvas) -> Present:
    left, top, right, bottom = box
    row = _cell_of((top + bottom) / 2 / canvas.height)
    column = _cell_of((left + right) / 2 / canvas.width)
    across, down = _cover(left, right, canvas.width), _cover(top, bottom, canvas.height)
    return Present(
        thing=thing,
        colour=COLOURS.index(thing.colour),
        shape=SHAPES.index(thing.shape),
        place=PLACES.index(nearest_place(*centre)),
        cell=GRID * row + column,
        box=box,
        cover=np.outer(down, across).astype(np.float32),
    )


def _cell_of(fraction: float) -> int:
    return min(max(int(fraction * GRID), 0), GRID - 1)


def _cover(start: int, stop: int, side: int) -> npt.NDArray[np.float64]:
    """float64 [GRID]: the share of each row or column of cells between two pixels."""
    edges = np.linspace(0, side, GRID + 1)
    covered = np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)
    return np.asarray(np.maximum(covered, 0) / (side / GRID))
