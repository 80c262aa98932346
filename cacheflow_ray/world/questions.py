"""Questions about a whole stream, each with one right one-word answer and the times it can be seen at.

| kind   | question                                     | answer              | chance |
|--------|----------------------------------------------|---------------------|--------|
| color  | what color was the star with number seven    | a colour            | 1/8    |
| shape  | what shape was the red thing with number two | a shape or "card"   | 1/9    |
| number | what number was on the red star              | zero .. nine        | 1/10   |
| where  | where was the red star                       | one of nine places  | 1/9    |
| yesno  | did the red star appear                      | yes, no             | 1/2    |
| order  | which came first the red star or the blue ring | the colour of one of the two | 1/2 |
| count  | how many times did the red star appear       | one .. four         | 1/4    |

Chance is what the kind (for `order`: the question) alone gives: answers are equally likely within their choices. Only
for `color` and `shape` is there more to be had without seeing the needle, by exclusion, since no other thing is of its
(colour, shape): who knows every distractor of the stream gets 16 % of colors and 15 % of shapes right, and who knows
every other needle as well 27 % and 24 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias, get_args

import numpy as np

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world.direct import MOST_APPEARANCES
from cacheflow_ray.world.script import Event, Needle, Script
from cacheflow_ray.world.things import COLOURS, DIGITS, PLACES, SHAPES, Pair
from cacheflow_ray.world.words import NO, YES

Kind: TypeAlias = Literal["color", "shape", "number", "where", "yesno", "order", "count"]

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, to be asked when the stream has ended.

    Args:
        text: lower-case words and spaces.
        answer: one word, one of `choices`.
        choices: all answers that are possible and equally likely, knowing the question alone.
        events: what must be seen to answer, in order of time; empty where the answer is no.
        fps: of the stream.
        after: the question this one follows up, for questions that say "it".
    """

    kind: Kind
    text: str
    answer: str
    choices: tuple[str, ...]
    events: tuple[Event, ...]
    fps: float
    after: Question | None = None

    @property
    def truth(self) -> tuple[tuple[float, float], ...]:
        """Closed ranges in seconds: times of the first and the last frame of each event."""
        return tuple((event.start / self.fps, (event.stop - 1) / self.fps) for event in self.events)

    @property
    def frames(self) -> tuple[range, ...]:
        """The frames of each event."""
        return tuple(range(event.start, event.stop) for event in self.events)

    @property
    def chance(self) -> float:
        """Accuracy of a guess that knows the question and nothing of the video."""
        return 1 / len(self.choices)


def make_questions(script: Script, *, per_kind: int = 4, kinds: Sequence[Kind] = KINDS) -> tuple[Question, ...]:
    """Up to `per_kind` questions of each kind, kind by kind; the same for the same script.

    A short stream has fewer. `yesno` come in pairs of one yes and one no, in random order.

    Raises:
        InvalidConfig: an unknown kind.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise InvalidConfig(f"no questions of kind {sorted(unknown)}: known are {KINDS}", key="kinds")
    questions: list[Question] = []
    for kind in KINDS:
        # A generator per kind: leaving a kind out changes no other.
        rng = np.random.default_rng((script.seed, 41, KINDS.index(kind)))
        if kind in kinds:
            questions += islice(_MAKERS[kind](script, rng), per_kind - per_kind % 2 if kind == "yesno" else per_kind)
    return tuple(questions)


def follow_up(script: Script, question: Question) -> Question | None:
    """A question that says "it" and means the thing of a `number` or `where` question; None where there is none."""
    (event,) = question.events if len(question.events) == 1 else (None,)
    if event is None or question.kind not in ("number", "where"):
        return None
    role = next(needle.role for needle in script.needles if needle.thing == event.thing)
    if question.kind == "number" and event.place:
        return _ask(script, "where", "where was it", event.place, PLACES, (event,), question)
    if question.kind == "where" and role == "single":
        return _ask(script, "number", "what number was on it", event.thing.number, DIGITS, (event,), question)
    return None


def name(pair: Pair) -> str:
    """A thing as questions call it: 'red star'."""
    return f"{pair[0]} {pair[1]}"


def _ask(
    script: Script,
    kind: Kind,
    text: str,
    answer: str,
    choices: tuple[str, ...],
    events: tuple[Event, ...],
    after: Question | None = None,
) -> Question:
    return Question(kind=kind, text=text, answer=answer, choices=choices, events=events, fps=script.fps, after=after)


def _needles(script: Script, rng: np.random.Generator, *roles: str) -> Iterator[tuple[Needle, tuple[Event, ...]]]:
    """Needles of these roles in random order, with their events."""
    for i in rng.permutation(len(script.needles)):
        needle = script.needles[i]
        if needle.role in roles:
            yield needle, script.appearances(needle.thing.pair)


def _color(script: Script, rng: np.random.Generator) -> Iterator[Question]:
    for needle, events in _needles(script, rng, "color"):
        text = f"what color was the {needle.thing.shape} with number {needle.thing.number}"
        yield _ask(script, "color", text, needle.thing.colour, COLOURS, events)


def _shape(script: Script, rng: np.random.Generator) -> Iterator[Question]:
    for needle, events in _needles(script, rng, "shape"):
        text = f"what shape was the {needle.thing.colour} thing with number {needle.thing.number}"
        yield _ask(script, "shape", text, needle.thing.shape, SHAPES, events)


def _number(script: Script, rng: np.random.Generator) -> Iterator[Question]:
    # Not of `color` and `shape` needles: their digits are those that distractors lack.
    for needle, events in _needles(script, rng, "single"):
        text = f"what number was on the {name(needle.thing.pair)}"
        yield _ask(script, "number", text, needle.thing.number, DIGITS, events)


def _where(script: Script, rng: np.random.Generator) -> Iterator[Question]:
    for needle, events in _needles(script, rng, "single", "color", "shape"):
        place = events[0].place
        if place:
            yield _ask(script, "where", f"where was the {name(needle.thing.pair)}", place, PLACES, events)


def _yesno(script: Script, rng: np.random.Generator) -> Iterator[Question]:
    """Pairs of a yes and a no. Nothing but the pair tells them apart: colour and shape of a "no" do appear."""
    colours = {event.thing.colour for event in script.events}
    shapes = {event.thing.shape for event in script.events}
    missing = [pair for pair in script.absent if pair[0] in colours and pair[1] in shapes]
    absent = (missing[i] for i in rng.permutation(len(missing)))
    for (needle, events), no in zip(_needles(script, rng, "single", "color", "shape", "count"), absent, strict=False):
        yes = needle.thing.pair
        pair = [(yes, YES, events), (no, NO, ())]
        for i in rng.permutation(2):
            subject, answer, seen = pair[i]
            yield _ask(script, "yesno", f"did the {name(subject)} appear", answer, (YES, NO), seen)


def _order(script: Script, rng: np.random.Generator) -> Iterator[Question]:
    """Two needles of different colours, one gone before the other comes; either may be named first."""
    events = [seen[0] for _, seen in _needles(script, rng, "single", "color", "shape")]
    while events:
        one = events.pop()
        other = next((e for e in events if e.thing.colour != one.thing.colour and _apart(one, e)), None)
        if other is None:
            continue
        events.remove(other)
        first = min(one, other, key=lambda event: event.start)
        text = f"which came first the {name(one.thing.pair)} or the {name(other.thing.pair)}"
        choices = (one.thing.colour, other.thing.colour)
        seen = tuple(sorted((one, other), key=lambda event: event.start))
        yield _ask(script, "order", text, first.thing.colour, choices, seen)


def _apart(one: Event, other: Event) -> bool:
    return one.stop <= other.start or other.stop <= one.start


def _count(script: Script, rng: np.random.Generator) -> Iterator[Question]:
    choices = DIGITS[1 : MOST_APPEARANCES + 1]
    for needle, events in _needles(script, rng, "count"):
        text = f"how many times did the {name(needle.thing.pair)} appear"
        yield _ask(script, "count", text, DIGITS[len(events)], choices, events)


_MAKERS: dict[Kind, Callable[[Script, np.random.Generator], Iterator[Question]]] = {
    "color": _color,
    "shape": _shape,
    "number": _number,
    "where": _where,
    "yesno": _yesno,
    "order": _order,
    "count": _count,
}
