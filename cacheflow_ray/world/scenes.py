"""Rooms over time: which background is where at a moment, how the light stands and how the camera moves.

Everything is a function of (seed, frame index): any frame can be asked for alone, in any order, at the same cost,
however long the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world.textures import FAMILIES, MARGIN, Room, cached_texture, reach
from cacheflow_ray.world.things import Canvas

Plane: TypeAlias = npt.NDArray[np.float32]

#: Offsets into the noise, per axis: 64 x 64 different crops, each mirrored or not.
_NOISE_SPAN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What makes a still room a video. Everything at 0 and None is a perfectly still camera.

    Args:
        noise: standard deviation of the sensor noise, in levels of 0..255.
        drift: how fast the background slides, at most, in frame widths per second.
        light: how far brightness swings around 1, slowly; 0..0.3.
        shake: the camera's random displacement per frame, at most, in frame widths; 0..0.04.
        scene_s: mean seconds between cuts to another room; None: one room for the whole stream.
        rooms: how many rooms a stream has; cuts go from one to another and come back.

    Raises:
        InvalidConfig: a value out of range.
    """

    noise: float = 3.0
    drift: float = 0.001
    light: float = 0.06
    shake: float = 0.0
    scene_s: float | None = 60.0
    rooms: int = 4

    def __post_init__(self) -> None:
        fine = 0 <= self.noise <= 40 and 0 <= self.drift <= 1 and 0 <= self.light <= 0.3 and 0 <= self.shake <= 0.04
        if not fine or self.rooms < 1 or not (self.scene_s is None or self.scene_s > 0):
            raise InvalidConfig(f"a look out of range: {self}", key="look")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """From frame `start` until the next scene the camera shows `room`."""

    start: int
    room: Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One frame's camera: what it looks at and how.

    Args:
        room: the background.
        slide: of the background, (x, y) in frame sides, within +-MARGIN together with the jolt.
        jolt: of the whole picture, things included, (x, y) in frame sides.
        gain: of red, green and blue.
        noise: standard deviation, and where in the noise to look: (x, y, mirrored).
    """

    room: Room
    slide: tuple[float, float] = (0.0, 0.0)
    jolt: tuple[float, float] = (0.0, 0.0)
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: tuple[float, int, int, bool] = (0.0, 0, 0, False)


def make_scenes(seed: int, num_frames: int, fps: float, look: Look) -> tuple[Scene, ...]:
    """The schedule of rooms: the first scene starts at 0, neighbours differ where there are two rooms or more."""
    rng = np.random.default_rng((seed, 21))
    families = rng.permutation(len(FAMILIES))
    rooms = [
        Room(family=FAMILIES[families[i % len(FAMILIES)]], seed=int(rng.integers(2**31))) for i in range(look.rooms)
    ]
    scenes = [Scene(start=0, room=rooms[0])]
    at, current = 0, 0
    while look.scene_s is not None and len(rooms) > 1:
        # Half of the mean is certain, the other half random: no cut directly after a cut.
        at += max(round((0.5 + rng.exponential(0.5)) * look.scene_s * fps), 1)
        if at >= num_frames:
            break
        current = (current + int(rng.integers(1, len(rooms)))) % len(rooms)
        scenes.append(Scene(start=at, room=rooms[current]))
    return tuple(scenes)


def shoot(seed: int, index: int, fps: float, look: Look, room: Room) -> Shot:
    """The camera at a frame."""
    rng = np.random.default_rng((seed, index, 22))
    jolt = rng.uniform(-look.shake, look.shake, 2)
    swing, phase = _swing(seed, look)
    wave = np.sin(phase + index / fps * swing)
    tint = 1 + look.light * (0.8 * wave[2] + 0.2 * wave[3:6])
    slide = (MARGIN - 0.05) * wave[:2] if look.drift else np.zeros(2)
    column, row, mirrored = rng.integers(0, (_NOISE_SPAN, _NOISE_SPAN, 2))
    return Shot(
        room=room,
        slide=(float(slide[0]), float(slide[1])),
        jolt=(float(jolt[0]), float(jolt[1])),
        gain=(float(tint[0]), float(tint[1]), float(tint[2])),
        noise=(look.noise, int(column), int(row), bool(mirrored)),
    )


@lru_cache(maxsize=64)
def _swing(seed: int, look: Look) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Angular speeds (per second) and phases of slide x, slide y, brightness and the three tints."""
    rng = np.random.default_rng((seed, 23))
    # A sine of amplitude a and angular speed w moves at a * w at most.
    top = look.drift / (MARGIN - 0.05)
    slide = top * rng.uniform(0.5, 1, 2)
    light = 2 * np.pi / rng.uniform(40, 160, 4)
    return np.concatenate([slide, light]), rng.uniform(0, 2 * np.pi, 6)


def backdrop(shot: Shot, canvas: Canvas) -> Plane:
    """float32 [height, width, 3], 0..255: the room as the camera sees it, before light and noise.

    Moves by fractions of a pixel: the four neighbours of each point are mixed.
    """
    walls = cached_texture(shot.room, canvas)
    reach_x, reach_y = reach(canvas)
    left, across = _split(reach_x, (shot.slide[0] + shot.jolt[0]) * canvas.width)
    top, down = _split(reach_y, (shot.slide[1] + shot.jolt[1]) * canvas.height)
    rows, columns = canvas.height, canvas.width
    patch = walls[top : top + rows + 1, left : left + columns + 1].astype(np.float32)
    patch = patch[:, :-1] + np.float32(across) * (patch[:, 1:] - patch[:, :-1])
    return np.asarray(patch[:-1] + np.float32(down) * (patch[1:] - patch[:-1]), np.float32)


def _split(reach_px: int, offset: float) -> tuple[int, float]:
    """Whole and fractional part of where a crop starts; kept within the texture."""
    start = min(max(reach_px - offset, 0.0), 2 * reach_px - 1.0)
    return int(start), start - int(start)


def develop(picture: Plane, shot: Shot) -> npt.NDArray[np.uint8]:
    """Light and sensor noise over a finished picture; changes `picture`. Returns uint8 of its shape."""
    picture *= np.asarray(shot.gain, np.float32)
    sigma, column, row, mirrored = shot.noise
    if sigma:
        height, width, _ = picture.shape
        noise = _noise(height, width)[row : row + height, column : column + width]
        picture += np.float32(sigma) * (noise[:, ::-1] if mirrored else noise)
    np.clip(picture, 0, 255, out=picture)
    return picture.astype(np.uint8)


@lru_cache(maxsize=8)
def _noise(height: int, width: int) -> Plane:
    """Standard normal noise, wider than a frame: each frame looks at another part of it. Nobody writes to it."""
    shape = (height + _NOISE_SPAN, width + _NOISE_SPAN, 3)
    return np.random.default_rng(24).standard_normal(shape, np.float32)
