"""What happens in a stream, frame by frame: values only. `direct` makes them, `render` films them.

frame      0         1         2         3  ...                      num_frames
scenes     |-- room a ---------|-- room b ---------|-- room a -- ...
needles      [red star 7]          [blue ring 2 ]        ...          each pair in its own events alone
others     [green heart 1] [green star 7][white card 0]  ...          look-alikes; may come again any time
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal, TypeAlias

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world.scenes import Look, Scene
from cacheflow_ray.world.things import Pair, Thing, nearest_place

#: What a needle is for. `color`: no other thing shares its shape and digit; `shape`: none shares its colour and digit;
#: `single`: appears once; `count`: appears one to four times. All but `count` appear once.
Role: TypeAlias = Literal["color", "shape", "single", "count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A straight way of a thing's centre, in fractions of the frame's width and height."""

    start: tuple[float, float]
    end: tuple[float, float]

    @property
    def moves(self) -> bool:
        return self.start != self.end

    def at(self, progress: float) -> tuple[float, float]:
        """The point after `progress` (0..1) of the way."""
        (x0, y0), (x1, y1) = self.start, self.end
        return x0 + progress * (x1 - x0), y0 + progress * (y1 - y0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A thing to be seen in the frames start <= index < stop.

    Args:
        size: of the thing, in the filmed scene's shorter side.
    """

    thing: Thing
    start: int
    stop: int
    path: Path
    size: float

    @property
    def place(self) -> str | None:
        """Where it stands; None if it moves."""
        return None if self.path.moves else nearest_place(*self.path.start)

    def centre(self, index: int) -> tuple[float, float]:
        """(x, y) of the centre in frame `index`, as fractions of width and height."""
        return self.path.at((index - self.start) / max(self.stop - self.start - 1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """A thing that can be asked about: no other thing of its (colour, shape) appears in the stream."""

    thing: Thing
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A stream before it is filmed.

    Args:
        fps: frames per second; frame i is shown at i / fps seconds.
        scenes: in order, the first at frame 0.
        events: in order of their start.
        needles: what questions may ask about.
        absent: pairs that never appear.

    Raises:
        InvalidConfig: no frames, a bad rate, or events or scenes that do not fit the stream.
    """

    seed: int
    num_frames: int
    fps: float
    look: Look
    scenes: tuple[Scene, ...]
    events: tuple[Event, ...]
    needles: tuple[Needle, ...]
    absent: tuple[Pair, ...]
    longest: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_extent(self.seed, self.num_frames, self.fps)
        starts = [event.start for event in self.events]
        inside = all(0 <= event.start < event.stop <= self.num_frames for event in self.events)
        if starts != sorted(starts) or not inside or not self.scenes or self.scenes[0].start != 0:
            raise InvalidConfig("events and scenes must be in order and within the stream", key="script")
        object.__setattr__(self, "longest", max((e.stop - e.start for e in self.events), default=0))

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps

    def scene(self, index: int) -> Scene:
        """The scene of frame `index`."""
        return self.scenes[bisect_right(self.scenes, index, key=attrgetter("start")) - 1]

    def active(self, index: int) -> tuple[Event, ...]:
        """Events to be seen in frame `index`, in order of their start."""
        first = bisect_left(self.events, index - self.longest + 1, key=attrgetter("start"))
        last = bisect_right(self.events, index, key=attrgetter("start"))
        return tuple(event for event in self.events[first:last] if index < event.stop)

    def appearances(self, pair: Pair) -> tuple[Event, ...]:
        """All events of a (colour, shape), in order."""
        return tuple(event for event in self.events if event.thing.pair == pair)


def check_extent(seed: int, num_frames: int, fps: float) -> None:
    """Raises InvalidConfig unless the seed is not negative and there are frames at a finite rate."""
    if seed < 0 or num_frames < 1 or not (math.isfinite(fps) and fps > 0):
        raise InvalidConfig(f"no stream of {num_frames} frames at {fps} fps with seed {seed}", key="script")
