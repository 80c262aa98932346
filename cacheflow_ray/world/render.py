"""Films a script: any frame alone, all of them in order, or a real video file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.media import Encoding, Frame, write_video
from cacheflow_ray.world.scenes import Plane, Shot, backdrop, develop, shoot
from cacheflow_ray.world.script import Script
from cacheflow_ray.world.sprites import sprite
from cacheflow_ray.world.things import Canvas, Thing

Image: TypeAlias = npt.NDArray[np.uint8]

#: A thing, its centre as fractions of width and height, and its size in the filmed scene's shorter side.
Placed: TypeAlias = tuple[Thing, tuple[float, float], float]

#: Pixels left, top, right, bottom; right and bottom exclusive.
Box: TypeAlias = tuple[int, int, int, int]


def frame(script: Script, index: int, canvas: Canvas | None = None) -> Image:
    """uint8 [height, width, 3] of one frame; the same bytes whenever and wherever it is rendered.

    Raises:
        InvalidConfig: the script has no such frame.
    """
    return expose(shot_of(script, index), placed(script, index), canvas or Canvas())


def frames(script: Script, canvas: Canvas | None = None, *, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
    """Frames start <= index < stop, rendered as they are asked for."""
    for index in range(start, script.num_frames if stop is None else min(stop, script.num_frames)):
        yield Frame(seq=index, timestamp_s=index / script.fps, image=frame(script, index, canvas))


def film(
    script: Script,
    path: str | Path,
    canvas: Canvas | None = None,
    *,
    codec: str | Encoding = "libx264",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the script as a video file; frame i is shown at i / fps.

    Args:
        path: the suffix names the container.
        progress: called with (frames rendered, frames in all) after each frame.

    Raises:
        UnsupportedMedia: odd sides where the encoder wants even ones, or no such encoder.
        MediaError: the file cannot be written.
    """
    images = (shown.image for shown in _reporting(frames(script, canvas), script.num_frames, progress))
    write_video(path, images, fps=script.fps, codec=codec)


def _reporting(shown: Iterable[Frame], total: int, progress: Callable[[int, int], None] | None) -> Iterator[Frame]:
    for one in shown:
        yield one
        if progress:
            progress(one.seq + 1, total)


def shot_of(script: Script, index: int) -> Shot:
    """The camera at a frame. Raises InvalidConfig if there is no such frame."""
    if not 0 <= index < script.num_frames:
        raise InvalidConfig(f"a script of {script.num_frames} frames has no frame {index}", key="index")
    return shoot(script.seed, index, script.fps, script.look, script.scene(index).room)


def placed(script: Script, index: int) -> list[Placed]:
    """What is to be seen in a frame, in drawing order."""
    return [(event.thing, event.centre(index), event.size) for event in script.active(index)]


def expose(shot: Shot, things: Iterable[Placed], canvas: Canvas) -> Image:
    """uint8 [height, width, 3]: things before the shot's room, under its light, with its noise."""
    picture = backdrop(shot, canvas)
    for thing, centre, size in things:
        _lay(picture, thing, box_of(centre, size, shot, canvas))
    return develop(picture, shot)


def box_of(centre: tuple[float, float], size: float, shot: Shot, canvas: Canvas) -> Box:
    """The pixels a thing is drawn in; they may reach beyond the frame."""
    width, height = canvas.pixels(size)
    left = round((centre[0] + shot.jolt[0]) * canvas.width - width / 2)
    top = round((centre[1] + shot.jolt[1]) * canvas.height - height / 2)
    return left, top, left + width, top + height


def _lay(picture: Plane, thing: Thing, box: Box) -> None:
    """Draws into `picture`, as much as lies within it."""
    left, top, right, bottom = box
    drawn = sprite(thing, right - left, bottom - top)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, picture.shape[1]), min(bottom, picture.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    region = picture[y0:y1, x0:x1]
    region *= drawn.behind[rows, columns]
    region += drawn.paint[rows, columns]
