"""Two short clips for commands to take in: a ball and a box that cross a room, and cards held up one after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

FPS = 4.0
SECONDS = 40
WIDTH, HEIGHT = 320, 240
COLOURS = ("crimson", "royalblue", "gold", "seagreen", "darkorange", "purple")
SECONDS_PER_CARD = 5
SECONDS_PER_ROOM = 20

Frame = npt.NDArray[np.uint8]


def render_clips(folder: Path) -> dict[str, Path]:
    """Film both clips as H.264 files in `folder`; their paths by name."""
    from cacheflow_ray.media import write_video

    painters: Mapping[str, Callable[[float], Frame]] = {"shapes": paint_shapes, "cards": paint_cards}
    paths = {name: folder / f"{name}.mp4" for name in painters}
    for name, path in paths.items():
        write_video(path, film(painters[name]), fps=FPS)
    return paths


def film(paint: Callable[[float], Frame]) -> Iterator[Frame]:
    """Frames [HEIGHT, WIDTH, 3] of a painter of moments."""
    return (paint(idx / FPS) for idx in range(int(SECONDS * FPS)))


def paint_shapes(second: float) -> Frame:
    """A red ball on its way through a grey room, then a blue box through a dark one."""
    first = second < SECONDS_PER_ROOM
    picture = Image.new("RGB", (WIDTH, HEIGHT), "lightgrey" if first else "dimgrey")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, HEIGHT * 3 // 4, WIDTH, HEIGHT), fill="tan" if first else "saddlebrown")
    way = (second % SECONDS_PER_ROOM) / SECONDS_PER_ROOM
    x = 40 + way * (WIDTH - 80)
    y = HEIGHT / 2 - abs(math.sin(way * 4 * math.pi)) * 60
    shape = (x - 28, y - 28, x + 28, y + 28)
    if first:
        draw.ellipse(shape, fill="crimson")
    else:
        draw.rectangle(shape, fill="royalblue")
    return np.asarray(picture)


def paint_cards(second: float) -> Frame:
    """Cards with the numbers 1, 2, 3 ..., each in a colour of its own."""
    number = int(second // SECONDS_PER_CARD)
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    left = 70 + 20 * (number % 3)
    draw.rectangle((left, 30, left + 140, 210), fill=COLOURS[number % len(COLOURS)])
    font = ImageFont.load_default(size=110)
    draw.text((left + 70, 120), str(number + 1), fill="white", font=font, anchor="mm")
    return np.asarray(picture)
