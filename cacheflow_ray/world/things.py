"""What can be seen in the world: a coloured shape (or card) with a digit on it, at one of nine places.

Every name is one word, so that a question and its answer can be spelled in a small vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from cacheflow_ray.errors import InvalidConfig

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart", "card")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

#: Row by row, so that `PLACES[3 * row + col]` names a place.
PLACES = ("top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right")

#: Centres of the three rows and the three columns of places, as fractions of the frame's height and width.
LINES = (0.185, 0.5, 0.815)

#: (colour, shape): what a question calls a thing by.
Pair: TypeAlias = tuple[str, str]

PAIRS: tuple[Pair, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A shape of one colour with a digit on it.

    Raises:
        InvalidConfig: a colour, shape or digit (0..9) the world does not know.
    """

    colour: str
    shape: str
    digit: int

    def __post_init__(self) -> None:
        if self.colour not in COLOURS or self.shape not in SHAPES or not 0 <= self.digit < len(DIGITS):
            raise InvalidConfig(f"the world has no {self.colour} {self.shape} with number {self.digit}", key="thing")

    @property
    def pair(self) -> Pair:
        return self.colour, self.shape

    @property
    def number(self) -> str:
        """The digit as a word."""
        return DIGITS[self.digit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """How the world is filmed.

    Args:
        width, height: of the frames, in pixels.
        aspect: width : height of what is filmed; None: as the frame. A frame of another aspect shows it squeezed, as
            16:9 video looks to a model that resizes everything to a square.

    Raises:
        InvalidConfig: a side below 32 pixels, or an aspect outside 1/4..4.
    """

    width: int = 112
    height: int = 112
    aspect: float | None = None

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 32:
            raise InvalidConfig(f"a canvas of {self.width}x{self.height} is too small: 32 at least", key="canvas")
        if not 0.25 <= self.filmed_aspect <= 4:
            raise InvalidConfig(f"an aspect of {self.filmed_aspect} is not within 1/4..4", key="aspect")

    @property
    def filmed_aspect(self) -> float:
        return self.width / self.height if self.aspect is None else self.aspect

    def pixels(self, size: float) -> tuple[int, int]:
        """(width, height) in pixels of something square whose side is `size` of the filmed scene's shorter side."""
        short = min(self.filmed_aspect, 1.0)
        width, height = size * short / self.filmed_aspect * self.width, size * short * self.height
        return max(round(width), 4), max(round(height), 4)


def nearest_place(x: float, y: float) -> str:
    """The place of a point given in fractions of width and height."""

    def line(value: float) -> int:
        return min(range(3), key=lambda i: abs(value - LINES[i]))

    return PLACES[3 * line(y) + line(x)]
