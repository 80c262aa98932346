"""Walls of the world: eight families of muted patterns, so that things stand out before any of them.

A family maps points (x, y), in heights of the filmed scene, to a field in 0..1; a room mixes its two colours by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world.things import Canvas

Plane: TypeAlias = npt.NDArray[np.float32]
Family: TypeAlias = Callable[[Plane, Plane, np.random.Generator], Plane]

#: The camera's reach beyond the frame, in frame sides: how far drift and shake may look past each edge.
MARGIN = 0.14


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One background: a family of patterns and the seed of its colours and proportions.

    Raises:
        InvalidConfig: no such family, or a negative seed.
    """

    family: str
    seed: int

    def __post_init__(self) -> None:
        if self.family not in FAMILIES or self.seed < 0:
            raise InvalidConfig(f"no room {self.family!r} with seed {self.seed}: families {FAMILIES}", key="room")


def texture(room: Room, canvas: Canvas) -> npt.NDArray[np.uint8]:
    """uint8 [height, width, 3], larger than the canvas by MARGIN on every side (see `reach`)."""
    rng = np.random.default_rng((room.seed, FAMILIES.index(room.family), 11))
    reach_x, reach_y = reach(canvas)
    per_pixel = np.float32(canvas.filmed_aspect / canvas.width)
    y = np.arange(canvas.height + 2 * reach_y, dtype=np.float32)[:, None] / np.float32(canvas.height)
    x = np.arange(canvas.width + 2 * reach_x, dtype=np.float32)[None] * per_pixel
    field = _PATTERNS[room.family](x, y, rng)
    field = 0.8 * field + 0.2 * _smooth((y.size, x.size), 9, rng)
    dark, light = _muted_colours(rng)
    return (dark + field[..., None] * (light - dark)).astype(np.uint8)


def reach(canvas: Canvas) -> tuple[int, int]:
    """Pixels (x, y) of texture beyond each edge of the frame."""
    return round(MARGIN * canvas.width), round(MARGIN * canvas.height)


@lru_cache(maxsize=24)
def cached_texture(room: Room, canvas: Canvas) -> npt.NDArray[np.uint8]:
    """`texture`, kept for the next frame of the same room. Nobody writes to it."""
    return texture(room, canvas)


def _muted_colours(rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Two greyish tones of middling brightness: float32 [3] each, within 45..175."""

    def tone(brightness: float) -> Plane:
        tint = rng.uniform(-1, 1, 3)
        tint -= tint.mean()
        return np.asarray(brightness + 22 * tint, np.float32)

    low = rng.uniform(68, 110)
    return tone(low), tone(low + rng.uniform(22, 42))


def _smooth(shape: tuple[int, int], knots: int, rng: np.random.Generator) -> Plane:
    """A smooth random field in 0..1 with about `knots` bumps along each axis."""
    coarse = Image.fromarray(rng.random((knots, knots), np.float32))
    field = np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float32)
    return np.clip(field, 0, 1)


def _along(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    angle = rng.uniform(0, np.pi)
    return np.asarray(x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)), np.float32)


def _soft(wave: Plane) -> Plane:
    """A sine made squarer: soft-edged bands in 0..1."""
    return np.asarray(0.5 + 0.5 * np.clip(2 * wave, -1, 1), np.float32)


def _gradient(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    ramp = _along(x, y, rng)
    low, high = float(ramp.min()), float(ramp.max())
    return np.asarray((ramp - low) / (high - low), np.float32)


def _stripes(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    return _soft(np.sin(_along(x, y, rng) * np.float32(rng.uniform(18, 40))))


def _checker(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    pitch = np.float32(rng.uniform(10, 24))
    return _soft(3 * np.sin(x * pitch) * np.sin(y * pitch))


def _clouds(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    shape = (y.size, x.size)
    return np.asarray(0.65 * _smooth(shape, 5, rng) + 0.35 * _smooth(shape, 13, rng), np.float32)


def _bricks(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    pitch = np.float32(rng.uniform(5, 9))
    row = np.floor(y * pitch)
    across, down = (x * pitch / 2 + 0.5 * (row % 2)) % 1, (y * pitch) % 1
    return np.asarray(np.where((across < 0.09) | (down < 0.16), 0.0, 0.9), np.float32)


def _dots(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    pitch = np.float32(rng.uniform(6, 11))
    across, down = (x * pitch) % 1 - 0.5, (y * pitch) % 1 - 0.5
    return np.asarray(np.clip(4 * (0.42 - np.sqrt(across**2 + down**2)), 0, 1), np.float32)


def _waves(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    bend = np.float32(rng.uniform(0.8, 2)) * np.sin(x * np.float32(rng.uniform(6, 12)))
    return _soft(np.sin(y * np.float32(rng.uniform(20, 34)) + bend))


def _ripples(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    centre_x, centre_y = (np.float32(value) for value in rng.uniform(-0.5, 1.7, 2))
    distance = np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2)
    return np.asarray(0.5 + 0.5 * np.sin(distance * np.float32(rng.uniform(16, 30))), np.float32)


_PATTERNS: dict[str, Family] = {
    "gradient": _gradient,
    "stripes": _stripes,
    "checker": _checker,
    "clouds": _clouds,
    "bricks": _bricks,
    "dots": _dots,
    "waves": _waves,
    "ripples": _ripples,
}

FAMILIES = tuple(_PATTERNS)
