"""Makes a script: deals the cast, puts needles on the timeline, and fills what is left with distractors.

Lanes keep the number of things at once bounded; in a lane, one event ends before the next starts:

    lane 0   [needle]   [other]   [needle]      [other]
    lane 1   [needle]          [other]   [other]          a needle here appears together with one of lane 0
    lane 2       [other]   [other]         [other]
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from cacheflow_ray.world.cast import draw_distractor, make_cast
from cacheflow_ray.world.difficulty import Difficulty
from cacheflow_ray.world.scenes import make_scenes
from cacheflow_ray.world.script import Event, Needle, Path, Role, Script, check_extent
from cacheflow_ray.world.things import LINES, Thing

#: (start, stop) frames of an event.
Span = tuple[int, int]

MOST_APPEARANCES = 4

#: Two things may overlap by this much (of the scene's shorter side) at their boxes' edges, where shapes are thin.
_TOUCH = 0.02

_TRIES = 24


def make_script(seed: int, num_frames: int, difficulty: Difficulty | None = None, *, fps: float = 1.0) -> Script:
    """A stream that depends on nothing but the arguments.

    Args:
        seed: not negative.
        difficulty: None: `Difficulty()`.
        fps: frames per second; the difficulty's seconds become frames by it.

    Raises:
        InvalidConfig: a negative seed, no frames or a bad rate.
    """
    check_extent(seed, num_frames, fps)
    difficulty = difficulty or Difficulty()
    rng = np.random.default_rng((seed, 31))
    pace = _Pace.of(num_frames, fps, difficulty)
    counts, num_singles = _plan(pace, difficulty, rng)
    counted: list[Role] = ["count"] * len(counts)
    cast = make_cast(_single_roles(num_singles, rng) + counted, rng)
    things = [[needle.thing] * times for needle, times in _times(cast.needles, counts)]
    lanes = _needle_spans(things, pace, difficulty, rng)
    stage = _Stage(difficulty, rng)
    # Movers last: a thing that stands then finds all nine places equally free, and "where" stays balanced.
    for moving, thing, span in sorted(_with_moving(lanes, difficulty, rng), key=lambda cue: cue[0]):
        stage.add(thing, span, moving=moving) or stage.add(thing, span, moving=False)
    shown = {event.thing for event in stage.events}
    for span in _free_spans([[span for _, span in lane] for lane in lanes], pace, difficulty, rng):
        thing = draw_distractor(cast, difficulty.lookalikes, rng)
        stage.add(thing, span, moving=bool(rng.random() < difficulty.moving))
    return Script(
        seed=seed,
        num_frames=num_frames,
        fps=fps,
        look=difficulty.look,
        scenes=make_scenes(seed, num_frames, fps, difficulty.look),
        events=tuple(stage.events),
        needles=tuple(needle for needle in cast.needles if needle.thing in shown),
        absent=cast.absent,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """The difficulty's seconds as frames of a stream of `length`: event lengths, pauses, distractors wanted."""

    length: int
    shortest: int
    longest: int
    gap: int
    num_distractors: float

    @classmethod
    def of(cls, num_frames: int, fps: float, difficulty: Difficulty) -> _Pace:
        shortest, longest = (min(max(round(value * fps), 1), num_frames) for value in difficulty.duration_s)
        gap = max(round(difficulty.gap_s * fps), 1)
        wanted = difficulty.density * num_frames / fps
        return cls(length=num_frames, shortest=shortest, longest=longest, gap=gap, num_distractors=wanted)

    @property
    def mean(self) -> float:
        return (self.shortest + self.longest) / 2

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.shortest, self.longest + 1))


def _plan(pace: _Pace, difficulty: Difficulty, rng: np.random.Generator) -> tuple[list[int], int]:
    """How often each counted needle appears, and how many needles appear once.

    The counts are drawn before anything that could depend on room, so that 1..4 are equally likely in every stream.
    """
    capacity = max(int((pace.length + pace.gap) / (pace.mean + pace.gap)), 1)
    num_counted = min(difficulty.needles // 5, capacity // 8)
    rounds = [1 + rng.permutation(MOST_APPEARANCES) for _ in range(1 + num_counted // MOST_APPEARANCES)]
    counts = [int(times) for times in np.concatenate(rounds)[:num_counted]]
    alone = 1 - difficulty.together if difficulty.at_once > 1 else 1.0
    room = int((capacity - sum(counts)) / max(alone, 0.5))
    return counts, min(difficulty.needles - num_counted, room)


def _single_roles(num_singles: int, rng: np.random.Generator) -> list[Role]:
    """Roles of the needles that appear once, evenly dealt; which comes first is random, for streams of few needles."""
    cycle: list[Role] = ["color", "shape", "single", "single"]
    first = int(rng.integers(len(cycle)))
    return [cycle[(first + i) % len(cycle)] for i in range(num_singles)]


def _times(needles: tuple[Needle, ...], counts: list[int]) -> list[tuple[Needle, int]]:
    left = list(counts)
    return [(needle, left.pop() if needle.role == "count" else 1) for needle in needles]


def _needle_spans(
    things: list[list[Thing]], pace: _Pace, difficulty: Difficulty, rng: np.random.Generator
) -> list[list[tuple[Thing, Span]]]:
    """Lanes of needles in time order: spread over the whole stream, every arrangement equally likely."""
    single = [thing for times in things for thing in times if len(times) == 1]
    rng.shuffle(single)
    hosts_needed = round(difficulty.together * len(single)) if difficulty.at_once > 1 else 0
    companions = single[: min(hosts_needed, len(single) // 2)]
    alone = [*single[len(companions) :], *(thing for times in things if len(times) > 1 for thing in times)]
    first = list(zip((alone[i] for i in rng.permutation(len(alone))), _spread(len(alone), pace, rng), strict=True))
    hosts = sorted(int(i) for i in rng.permutation(len(first))[: len(companions)])
    second = [(thing, _within(first[host][1], pace, rng)) for thing, host in zip(companions, hosts, strict=True)]
    return [first, second, [], []][: difficulty.at_once]


def _spread(num: int, pace: _Pace, rng: np.random.Generator) -> list[Span]:
    """`num` spans in order with at least `gap` frames between them: the slack is cut at random points."""
    lengths = [pace.draw(rng) for _ in range(num)]
    slack = pace.length - sum(lengths) - pace.gap * (num - 1)
    while slack < 0:
        lengths[int(np.argmax(lengths))] -= 1
        slack += 1
    starts, used = [], 0
    for cut, length in zip(np.sort(rng.integers(0, slack + 1, num)), lengths, strict=True):
        starts.append(int(cut) + used)
        used += length + pace.gap
    return [(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def _within(span: Span, pace: _Pace, rng: np.random.Generator) -> Span:
    """A span inside another, as long as an event must be where that fits."""
    spare = max(span[1] - span[0] - pace.shortest, 0)
    late, early = sorted(int(value) for value in rng.integers(0, spare + 1, 2))
    return span[0] + late, span[1] - (spare - early)


def _with_moving(
    lanes: list[list[tuple[Thing, Span]]], difficulty: Difficulty, rng: np.random.Generator
) -> list[tuple[bool, Thing, Span]]:
    return [(bool(rng.random() < difficulty.moving), thing, span) for lane in lanes for thing, span in lane]


def _free_spans(lanes: list[list[Span]], pace: _Pace, difficulty: Difficulty, rng: np.random.Generator) -> list[Span]:
    """Spans for distractors between the needles of each lane, in time order, about `num_distractors` of them."""
    if not pace.num_distractors:
        return []
    free = len(lanes) * pace.length - sum(stop - start for lane in lanes for start, stop in lane)
    pause = max(free / pace.num_distractors - pace.mean, 0.0)
    spans = []
    for lane in lanes:
        at = -int(rng.integers(0, pace.longest))  # lanes would otherwise start in step
        for start, stop in [*lane, (pace.length, pace.length)]:
            while (at := at + round(rng.exponential(pause))) < start:
                end = min(at + pace.draw(rng), start)
                if at >= 0 and end - at >= pace.shortest:
                    spans.append((at, end))
                at = end
            at = stop
    return sorted(spans)


class _Stage:
    """Events in order of their start, none over another."""

    def __init__(self, difficulty: Difficulty, rng: np.random.Generator) -> None:
        self.events: list[Event] = []
        self._size = difficulty.size
        self._rng = rng
        self._longest = 0

    def add(self, thing: Thing, span: Span, *, moving: bool) -> bool:
        """Puts a thing on stage where it covers no other; False if no such place was found."""
        company = self._company(span)
        for _ in range(_TRIES):
            size = float(self._rng.uniform(*self._size))
            path = _draw_path(size, moving and span[1] - span[0] > 1, self._rng)
            event = Event(thing=thing, start=span[0], stop=span[1], path=path, size=size)
            if not any(_collide(event, other) for other in company):
                insort(self.events, event, key=attrgetter("start"))
                self._longest = max(self._longest, span[1] - span[0])
                return True
        return False

    def _company(self, span: Span) -> list[Event]:
        first = bisect_left(self.events, span[0] - self._longest, key=attrgetter("start"))
        last = bisect_right(self.events, span[1] - 1, key=attrgetter("start"))
        return [event for event in self.events[first:last] if event.stop > span[0]]


def _draw_path(size: float, moving: bool, rng: np.random.Generator) -> Path:
    """Stands near one of the nine places, or goes from one to another."""
    jitter = min(0.035, LINES[0] - size / 2 - 0.005)
    places = rng.permutation(9)[:2]
    (x0, y0), (x1, y1) = (
        (
            LINES[place % 3] + float(rng.uniform(-jitter, jitter)),
            LINES[place // 3] + float(rng.uniform(-jitter, jitter)),
        )
        for place in places
    )
    return Path(start=(x0, y0), end=(x1, y1) if moving else (x0, y0))


def _collide(one: Event, other: Event) -> bool:
    """Whether their boxes overlap in any frame both are seen in."""
    apart = (one.size + other.size) / 2 - _TOUCH
    common = range(max(one.start, other.start), min(one.stop, other.stop))
    frames = common if one.path.moves or other.path.moves else common[:1]
    for index in frames:
        (x0, y0), (x1, y1) = one.centre(index), other.centre(index)
        if abs(x0 - x1) < apart and abs(y0 - y1) < apart:
            return True
    return False
