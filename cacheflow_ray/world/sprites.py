"""How things look: drawn four times too large, then shrunk, so that edges are smooth at any size.

    outline ─┐  a line around the shape, light around dark colours and dark around light ones: it stands out anywhere
    colour  ─┤  the shape
    halo    ─┤  the shape's colour around the digit, where a thin shape would let it stick out
    digit   ─┘  in the outline's tone

Digits are a bitmap font of our own: the same bytes whatever font library is installed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cacheflow_ray.world.things import Thing

Plane: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Point: TypeAlias = tuple[float, float]

#: RGB of each colour and of the ink (outline and digit) that goes with it.
INKS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "red": ((222, 24, 32), (255, 255, 255)),
    "orange": ((255, 132, 0), (20, 20, 20)),
    "yellow": ((255, 236, 40), (20, 20, 20)),
    "green": ((16, 160, 52), (255, 255, 255)),
    "blue": ((28, 72, 236), (255, 255, 255)),
    "purple": ((160, 36, 200), (255, 255, 255)),
    "white": ((250, 250, 250), (20, 20, 20)),
    "black": ((12, 12, 14), (255, 255, 255)),
}

#: Five by seven cells each, row by row.
GLYPHS = (
    "01110 10001 10001 10001 10001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "11110 00001 00001 01110 00001 00001 11110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)

#: Height of the digit and its centre from the top, in the shape's height.
DIGIT_FIT = {
    "circle": (0.56, 0.5),
    "square": (0.6, 0.5),
    "triangle": (0.44, 0.66),
    "star": (0.44, 0.54),
    "cross": (0.44, 0.5),
    "diamond": (0.46, 0.5),
    "ring": (0.44, 0.5),
    "heart": (0.46, 0.44),
    "card": (0.6, 0.5),
}

_OVERSAMPLING = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sprite:
    """A drawn thing, to be laid over a picture as `picture * behind + paint`.

    Args:
        paint: float32 [h, w, 3], 0..255, already multiplied by its opacity.
        behind: float32 [h, w, 1], 0..1: how much of what is behind shows through.
    """

    paint: Plane
    behind: Plane


@lru_cache(maxsize=8192)
def sprite(thing: Thing, width: int, height: int) -> Sprite:
    """Draws a thing `width` x `height` pixels large."""
    fill, ink = (np.asarray(tone, np.float32) for tone in INKS[thing.colour])
    body, inner = _shape_planes(thing.shape, width, height)
    halo, digit = _digit_planes(thing.digit, thing.shape, width, height)
    paint = body * ink
    for colour, plane in ((fill, inner), (fill, halo), (ink, digit)):
        paint = paint + plane * (colour - paint)
    return Sprite(paint=paint, behind=(1 - body) * (1 - halo))


@lru_cache(maxsize=1024)
def _shape_planes(shape: str, width: int, height: int) -> tuple[Plane, Plane]:
    """Opacity, float32 [height, width, 1], of the shape with its outline and of what is inside the outline."""
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    body = _shape_mask(shape, size)
    # A card's broad edge tells it from a square seen narrow.
    edge = _line(size) * (2 if shape == "card" else 1)
    return _shrunk(body), _shrunk(~_grown(~body, edge))


@lru_cache(maxsize=4096)
def _digit_planes(digit: int, shape: str, width: int, height: int) -> tuple[Plane, Plane]:
    """Opacity, float32 [height, width, 1], of the digit's halo and of the digit."""
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    mask = _digit_mask(digit, shape, size)
    return _shrunk(_grown(mask, _line(size))), _shrunk(mask)


def _line(size: tuple[int, int]) -> int:
    """Width of outlines in oversampled pixels."""
    return max(round(min(size) * 0.036), 3)


def _grown(mask: Mask, radius: int) -> Mask:
    """Every point within `radius` rows and columns of the mask; beyond its edges lies what the edges show."""
    for axis in (0, 1):
        padded = np.pad(mask, [(radius, radius) if axis == i else (0, 0) for i in (0, 1)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis=axis)
        mask = np.asarray(windows.any(axis=-1))
    return mask


def _shrunk(mask: Mask) -> Plane:
    """The share of each final pixel that the mask covers."""
    height, width = (side // _OVERSAMPLING for side in mask.shape)
    cells = mask.reshape(height, _OVERSAMPLING, width, _OVERSAMPLING)
    return np.asarray(cells.mean(axis=(1, 3), dtype=np.float32)[..., None])


def _shape_mask(shape: str, size: tuple[int, int]) -> Mask:
    """bool [height, width]: inside the shape."""
    mask = Image.new("L", size, 0)
    draw = ImageDraw.Draw(mask)
    width, height = size

    def at(points: Sequence[Point]) -> list[Point]:
        return [(x * (width - 1), y * (height - 1)) for x, y in points]

    if shape in ("circle", "ring"):
        draw.ellipse(at([(0.02, 0.02), (0.98, 0.98)]), fill=255)
        if shape == "ring":
            draw.ellipse(at([(0.2, 0.2), (0.8, 0.8)]), fill=0)
    elif shape == "heart":
        draw.ellipse(at([(0.02, 0.06), (0.53, 0.57)]), fill=255)
        draw.ellipse(at([(0.47, 0.06), (0.98, 0.57)]), fill=255)
        draw.polygon(at([(0.06, 0.44), (0.5, 0.3), (0.94, 0.44), (0.5, 0.97)]), fill=255)
    else:
        draw.polygon(at(_corners(shape)), fill=255)
    return np.asarray(mask) > 0


def _corners(shape: str) -> list[Point]:
    """Corners in 0..1, clockwise from the top."""
    if shape == "star":
        spokes = [(0.53 if i % 2 == 0 else 0.28, math.pi * i / 5) for i in range(10)]
        return [(0.5 + radius * math.sin(angle), 0.53 - radius * math.cos(angle)) for radius, angle in spokes]
    return {
        "square": [(0.07, 0.07), (0.93, 0.07), (0.93, 0.93), (0.07, 0.93)],
        "triangle": [(0.5, 0.02), (0.99, 0.94), (0.01, 0.94)],
        "diamond": [(0.5, 0.0), (0.98, 0.5), (0.5, 1.0), (0.02, 0.5)],
        "cross": [
            *[(0.33, 0.02), (0.67, 0.02), (0.67, 0.33), (0.98, 0.33), (0.98, 0.67), (0.67, 0.67)],
            *[(0.67, 0.98), (0.33, 0.98), (0.33, 0.67), (0.02, 0.67), (0.02, 0.33), (0.33, 0.33)],
        ],
        "card": [(0.17, 0.03), (0.83, 0.03), (0.83, 0.97), (0.17, 0.97)],
    }[shape]


def _digit_mask(digit: int, shape: str, size: tuple[int, int]) -> Mask:
    """bool [height, width]: where the digit is."""
    width, height = size
    fraction, middle = DIGIT_FIT[shape]
    tall, wide = max(round(height * fraction), 7), max(round(width * fraction * 0.68), 5)
    cells = np.array([[cell == "1" for cell in row] for row in GLYPHS[digit].split()])
    glyph = cells[np.arange(tall) * 7 // tall][:, np.arange(wide) * 5 // wide]
    mask = np.zeros((height, width), bool)
    top, left = round(height * middle - tall / 2), (width - wide) // 2
    mask[top : top + tall, left : left + wide] = glyph
    return mask
