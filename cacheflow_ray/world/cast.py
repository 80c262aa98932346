"""Who appears: the (colour, shape) pairs of a stream, dealt into three hands.

    needles       one thing each, in its own events alone: what questions ask about
    distractors   appear any number of times, with any digit that leaves every question one answer
    absent        never appear: what "no" is the answer to

"What color was the star with number seven" has one answer only if no second thing is a star with number seven. So the
needles of role `color` reserve their (shape, digit), those of role `shape` their (colour, digit), and nobody else gets
them. No more is reserved: otherwise the digits that distractors lack would give the needles' digits away.

A green star among the distractors tells that no needle is one. So that this excludes little, distractors are of few
pairs, however many events they fill.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cacheflow_ray.world.script import Needle, Role
from cacheflow_ray.world.things import DIGITS, PAIRS, Pair, Thing

NUM_DISTRACTORS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who appears in one stream.

    Args:
        distractors: each pair with the digits it may carry, never empty.
        kin: for each needle, the distractor pairs that share its colour or its shape.
    """

    needles: tuple[Needle, ...]
    absent: tuple[Pair, ...]
    distractors: dict[Pair, tuple[int, ...]]
    kin: tuple[tuple[Pair, ...], ...]


def make_cast(roles: list[Role], rng: np.random.Generator) -> Cast:
    """Deals all pairs: one needle per role, as far as digits go round."""
    pairs = [PAIRS[i] for i in rng.permutation(len(PAIRS))]
    chosen, rest = pairs[: len(roles)], pairs[len(roles) :]
    # Those that reserve go first; the pairs are in random order, so this favours none.
    needles: list[Needle] = []
    for role, pair in zip(sorted(roles, key=("color", "shape").__contains__, reverse=True), chosen, strict=True):
        digits = _free_digits(pair, role, needles)
        if digits:
            thing = Thing(colour=pair[0], shape=pair[1], digit=int(rng.choice(digits)))
            needles.append(Needle(thing=thing, role=role))
    others, absent = rest[:NUM_DISTRACTORS], rest[NUM_DISTRACTORS:]
    digits_of = {pair: tuple(_free_digits(pair, "single", needles)) for pair in others}
    distractors = {pair: digits for pair, digits in digits_of.items() if digits}
    kin = tuple(tuple(pair for pair in distractors if _alike(pair, needle.thing.pair)) for needle in needles)
    return Cast(needles=tuple(needles), absent=tuple(absent), distractors=distractors, kin=kin)


def draw_distractor(cast: Cast, lookalikes: float, rng: np.random.Generator) -> Thing:
    """A distractor; with probability `lookalikes` one that a needle could be taken for."""
    pairs = tuple(cast.distractors)
    digit = None
    if cast.needles and rng.random() < lookalikes:
        chosen = int(rng.integers(len(cast.needles)))
        pairs = cast.kin[chosen] or pairs
        digit = cast.needles[chosen].thing.digit
    pair = pairs[int(rng.integers(len(pairs)))]
    allowed = cast.distractors[pair]
    if digit not in allowed:
        digit = allowed[int(rng.integers(len(allowed)))]
    return Thing(colour=pair[0], shape=pair[1], digit=digit)


def _alike(one: Pair, other: Pair) -> bool:
    return one[0] == other[0] or one[1] == other[1]


def _free_digits(pair: Pair, role: Role, needles: list[Needle]) -> list[int]:
    """Digits a thing of this pair and role may carry beside the needles dealt so far."""
    taken = set()
    for needle in needles:
        same_colour, same_shape = needle.thing.colour == pair[0], needle.thing.shape == pair[1]
        if same_shape and "color" in (needle.role, role):
            taken.add(needle.thing.digit)
        if same_colour and "shape" in (needle.role, role):
            taken.add(needle.thing.digit)
    return [digit for digit in range(len(DIGITS)) if digit not in taken]
