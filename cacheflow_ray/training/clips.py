"""Clips for the language model, cut and recombined from the bank, with questions nothing in the clip contradicts.

Pieces of several streams stand end to end. What would give a question two right answers is taken out of the clip: the
tokens of the event, as if it had never happened. So every clip is new, however small the bank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cacheflow_ray.training.bank import EVENT_DTYPE, StreamTokens
from cacheflow_ray.world import COLOURS, DIGITS, PLACES, SHAPES
from cacheflow_ray.world.words import NO, YES

KIND_WEIGHTS = {"color": 1.0, "shape": 1.0, "number": 1.0, "where": 1.0, "yesno": 1.0, "order": 1.3, "count": 1.3}

#: Appearances of one pair count as two when so many frames lie between them.
_GAP = 2

_MOST_COUNTED = 4
_TRIES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question about a clip.

    Args:
        kind: of `world.KINDS`.
        turns: (question, answer) of the conversation; the last is the question, one before it what "it" refers to.
        events: numbers of the events that must be seen, none where the answer is no.
    """

    kind: str
    turns: tuple[tuple[str, str], ...]
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """Exactly the tokens asked for.

    Args:
        features: float16 [T, C].
        shows: int32 [T], the event a token shows most of, -1 where none.
        asked: the questions.
    """

    features: npt.NDArray[np.float16]
    shows: npt.NDArray[np.int32]
    asked: tuple[Asked, ...]

    def blocks_of(self, asked: Asked, block_size: int) -> set[int]:
        """Numbers of the blocks that hold a question's events."""
        tokens = np.flatnonzero(np.isin(self.shows, asked.events))
        return set((tokens // block_size).tolist())


def make_clip(
    bank: Sequence[StreamTokens],
    rng: np.random.Generator,
    num_tokens: int,
    num_questions: int,
    *,
    num_seen: int | None = None,
    follow_ups: float = 0.15,
    kind_weights: Mapping[str, float] = KIND_WEIGHTS,
) -> Clip:
    """A clip of `num_tokens` with up to `num_questions` questions.

    Args:
        num_seen: questions are about the first so many tokens; None: all of them.
        kind_weights: how often each kind is asked, relative to the others.
        follow_ups: share of the number and where questions that say "it", of what the turn before was about.
    """
    reserve = 1.3
    while True:
        draft = _draft(bank, rng, num_tokens, num_tokens if num_seen is None else num_seen, reserve)
        asked = _questions(draft, rng, num_questions, follow_ups, kind_weights)
        keep = draft.kept_tokens()[:num_tokens]
        if len(keep) == num_tokens:
            return Clip(features=draft.features[keep], shows=draft.shows[keep, 0], asked=asked)
        reserve *= 2  # what the questions took out left too little


def _questions(
    draft: _Draft, rng: np.random.Generator, num_questions: int, follow_ups: float, kind_weights: Mapping[str, float]
) -> tuple[Asked, ...]:
    asked: list[Asked] = []
    kinds, weights = list(kind_weights), np.array(list(kind_weights.values()))
    for _ in range(3 * num_questions):
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        question = _MAKERS[kind](draft, rng)
        if question is not None and rng.random() < follow_ups:
            question = _followed_up(draft, question)
        if question is not None:
            asked.append(question)
        if len(asked) == num_questions:
            break
    return tuple(asked)


@dataclass(slots=True)
class _Draft:
    """Pieces end to end, before anything is taken out.

    Args:
        shows: [T, 2] numbers into `events`, -1 where none.
        events: [E] of EVENT_DTYPE, frames counted over the whole clip.
        usable: [E] seen from its start on, within the tokens that are sure to stay.
    """

    features: npt.NDArray[np.float16]
    shows: npt.NDArray[np.int32]
    events: npt.NDArray[Any]
    usable: npt.NDArray[np.bool_]
    alive: npt.NDArray[np.bool_]
    locked: npt.NDArray[np.bool_]
    pair: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.pair = self.events["colour"].astype(np.int64) * len(SHAPES) + self.events["shape"]

    def kept_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens that show nothing that was taken out."""
        gone = np.append(~self.alive, False)  # -1 reads the last
        first, second = self.shows[:, 0], self.shows[:, 1]
        out = gone[first] | (gone[second] & (first < 0))
        return np.flatnonzero(~out)

    def claim(self, chosen: Sequence[int], rivals: npt.NDArray[np.bool_]) -> bool:
        """Keep `chosen` for good and take the other `rivals` out; False, and nothing is done, where one is claimed."""
        others = rivals & self.alive
        others[list(chosen)] = False
        if (others & self.locked).any():
            return False
        self.alive &= ~others
        self.locked[list(chosen)] = True
        return True

    def free(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.usable & self.alive)

    def name(self, event: int) -> str:
        return f"{COLOURS[self.events['colour'][event]]} {SHAPES[self.events['shape'][event]]}"


def _draft(
    bank: Sequence[StreamTokens], rng: np.random.Generator, num_tokens: int, num_seen: int, reserve: float
) -> _Draft:
    features, shows, events, partial = [], [], [], []
    total, num_events, at_frame = 0, 0, 0
    while total < num_tokens * reserve + 96:
        stream = bank[int(rng.integers(len(bank)))]
        start = int(rng.integers(0, max(1, stream.num_frames - 16))) if rng.random() < 0.8 else 0
        stop = min(stream.num_frames, start + int(rng.integers(16, stream.num_frames + 1)))
        tokens = slice(*np.searchsorted(stream.frame, (start, stop)))
        own = stream.events
        features.append(stream.features[tokens])
        shows.append(np.where(stream.shows[tokens] >= 0, stream.shows[tokens] + num_events, -1))
        shifted = own.copy()
        shifted["start"] += at_frame - start
        shifted["stop"] += at_frame - start
        events.append(shifted)
        partial.append((own["start"] < start + (start > 0)) | (own["start"] >= stop))
        total, num_events, at_frame = total + len(features[-1]), num_events + len(own), at_frame + stop - start + 8
    everything = np.concatenate(events) if events else np.empty(0, EVENT_DTYPE)
    all_shows = np.concatenate(shows)
    is_partial = np.concatenate(partial)
    return _Draft(
        features=np.concatenate(features),
        shows=all_shows,
        events=everything,
        usable=_within(all_shows[:, 0], len(everything), num_seen) & ~is_partial,
        alive=~is_partial,
        locked=np.zeros(len(everything), bool),
    )


def _within(shows: npt.NDArray[np.int32], num_events: int, num_tokens: int) -> npt.NDArray[np.bool_]:
    """Events that have tokens, all of them among the first `num_tokens`."""
    last = np.full(num_events + 1, -1, np.int64)
    np.maximum.at(last, shows, np.arange(len(shows)))  # -1 lands in the spare place
    return (last[:-1] >= 0) & (last[:-1] < num_tokens)


def _pick(values: npt.NDArray[np.int64], rng: np.random.Generator) -> int:
    return int(values[int(rng.integers(len(values)))])


def _same(draft: _Draft, event: int, *names: str) -> npt.NDArray[np.bool_]:
    rivals = np.ones(len(draft.events), bool)
    for name in names:
        rivals &= draft.events[name] == draft.events[name][event]
    return rivals


def _by_number(kind: str) -> Callable[[_Draft, np.random.Generator], Asked | None]:
    """The colour of a shape with a number, or the shape of a colour with one."""

    def make(draft: _Draft, rng: np.random.Generator) -> Asked | None:
        for event in _some(draft, rng):
            if draft.claim([event], _same(draft, event, "shape" if kind == "color" else "colour", "digit")):
                seen = draft.events[event]
                colour, shape = COLOURS[seen["colour"]], SHAPES[seen["shape"]]
                turn = {
                    "color": (f"what color was the {shape} with number {DIGITS[seen['digit']]}", colour),
                    "shape": (f"what shape was the {colour} thing with number {DIGITS[seen['digit']]}", shape),
                }[kind]
                return Asked(kind=kind, turns=(turn,), events=(event,))
        return None

    return make


def _about_one(kind: str) -> Callable[[_Draft, np.random.Generator], Asked | None]:
    def make(draft: _Draft, rng: np.random.Generator) -> Asked | None:
        for event in _some(draft, rng):
            known = kind == "number" or draft.events["place"][event] >= 0
            if known and draft.claim([event], _same(draft, event, "colour", "shape")):
                return Asked(kind=kind, turns=(_turn(draft, kind, event),), events=(event,))
        return None

    return make


def _turn(draft: _Draft, kind: str, event: int) -> tuple[str, str]:
    if kind == "number":
        return f"what number was on the {draft.name(event)}", DIGITS[draft.events["digit"][event]]
    return f"where was the {draft.name(event)}", PLACES[draft.events["place"][event]]


def _followed_up(draft: _Draft, asked: Asked) -> Asked:
    """The other question about the thing first, then this one about "it"; as it is where there is no other."""
    if asked.kind not in ("number", "where") or draft.events["place"][asked.events[0]] < 0:
        return asked
    first = _turn(draft, "where" if asked.kind == "number" else "number", asked.events[0])
    again = "what number was on it" if asked.kind == "number" else "where was it"
    return replace(asked, turns=(first, (again, asked.turns[0][1])))


def _yesno(draft: _Draft, rng: np.random.Generator) -> Asked | None:
    if rng.random() < 0.5:
        for event in _some(draft, rng):
            draft.locked[event] = True
            return Asked(kind="yesno", turns=((f"did the {draft.name(event)} appear", YES),), events=(event,))
        return None
    return _no(draft, rng)


def _no(draft: _Draft, rng: np.random.Generator) -> Asked | None:
    colours, shapes = (np.unique(draft.events[name][draft.alive]) for name in ("colour", "shape"))
    for _ in range(_TRIES):
        if not len(colours):
            return None
        pair = _pick(colours, rng) * len(SHAPES) + _pick(shapes, rng)
        if draft.claim([], draft.pair == pair):
            text = f"did the {COLOURS[pair // len(SHAPES)]} {SHAPES[pair % len(SHAPES)]} appear"
            return Asked(kind="yesno", turns=((text, NO),), events=())
    return None


def _order(draft: _Draft, rng: np.random.Generator) -> Asked | None:
    events = draft.events
    for _ in range(_TRIES):
        free = draft.free()
        if len(free) < 2:
            return None
        one, other = (int(event) for event in rng.choice(free, 2, replace=False))
        apart = events["stop"][one] <= events["start"][other] or events["stop"][other] <= events["start"][one]
        if events["colour"][one] == events["colour"][other] or not apart:
            continue
        rivals = _same(draft, one, "colour", "shape") | _same(draft, other, "colour", "shape")
        if draft.claim([one, other], rivals):
            first = min(one, other, key=lambda event: int(events["start"][event]))
            text = f"which came first the {draft.name(one)} or the {draft.name(other)}"
            return Asked(kind="order", turns=((text, COLOURS[events["colour"][first]]),), events=(one, other))
    return None


def _count(draft: _Draft, rng: np.random.Generator) -> Asked | None:
    free = draft.free()
    if not len(free):
        return None
    pairs, there = np.unique(draft.pair[free], return_counts=True)
    times = int(rng.integers(1, _MOST_COUNTED + 1))  # no less often asked where it is rare, or "one" would be a guess
    for _ in range(_TRIES if there.max() >= times else 0):
        pair = _pick(pairs[there >= times], rng)
        chosen = _apart_events(draft, pair, times, rng)
        if chosen and draft.claim(chosen, draft.pair == pair):
            name = draft.name(chosen[0])
            turn = (f"how many times did the {name} appear", DIGITS[times])
            return Asked(kind="count", turns=(turn,), events=tuple(chosen))
    return None


def _apart_events(draft: _Draft, pair: int, times: int, rng: np.random.Generator) -> list[int]:
    """`times` events of a pair, the claimed ones first, no two within _GAP frames; empty where there are none."""
    own = np.flatnonzero((draft.pair == pair) & draft.usable & draft.alive)
    own = own[np.lexsort((rng.random(len(own)), ~draft.locked[own]))]
    chosen: list[int] = []
    for event in own.tolist():
        start, stop = draft.events["start"][event], draft.events["stop"][event]
        near = any(start < draft.events["stop"][e] + _GAP and draft.events["start"][e] < stop + _GAP for e in chosen)
        if not near and len(chosen) < times:
            chosen.append(event)
    return chosen if len(chosen) == times else []


def _some(draft: _Draft, rng: np.random.Generator) -> list[int]:
    free = draft.free()
    return [int(event) for event in rng.permutation(free)[:_TRIES]]


_MAKERS: dict[str, Callable[[_Draft, np.random.Generator], Asked | None]] = {
    "color": _by_number("color"),
    "shape": _by_number("shape"),
    "number": _about_one("number"),
    "where": _about_one("where"),
    "yesno": _yesno,
    "order": _order,
    "count": _count,
}
