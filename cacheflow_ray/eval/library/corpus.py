"""A library of videos, and questions each of which only one of them can answer.

Half of the world's 72 pairs of colour and shape are needles: each has a video of its own and is taken out of all
others. The other half stays where it is, in any number of videos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.eval.needle.streams import Remembered, remember
from cacheflow_ray.world import Question, Script, make_script
from cacheflow_ray.world.things import Pair

#: Videos ingested together, so that the encoder's batches are full.
_TOGETHER = 12

#: Kinds that name the whole pair, and have one event to find.
_KINDS = ("number", "where", "yesno")

_PER_KIND = 99


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sought:
    """A question, and the blocks of one stream any of which shows what it asks about."""

    question: Question
    stream: str
    blocks: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corpus:
    """A library in the store.

    Args:
        num_blocks: of all streams.
        sought: what can be found. left_out: questions about what no full block shows, since nothing of it was kept, or
            it is in a stream's open block alone.
    """

    num_blocks: int
    sought: tuple[Sought, ...]
    left_out: int


def ingest_library(
    backend: Backend, videos: int, frames: int, settings: StreamSettings, *, note: Callable[[str], None]
) -> Corpus:
    """Videos of held-out seeds 0, 1, ..., each as a stream of its own."""
    scripts, owners = make_library(videos, frames)
    remembered: list[Remembered] = []
    for first in range(0, videos, _TOGETHER):
        some = scripts[first : first + _TOGETHER]
        remembered += remember(backend, some, "video", settings, per_kind=_PER_KIND)
        note(f"{len(remembered)} of {videos} videos of {frames} frames")
    found: list[Sought] = []
    for pair, owner in owners.items():
        found += _questions(remembered[owner], pair)
    return Corpus(
        num_blocks=sum(own.num_blocks for own in remembered),
        sought=tuple(own for own in found if own.blocks),
        left_out=sum(1 for own in found if not own.blocks),
    )


def make_library(videos: int, frames: int) -> tuple[tuple[Script, ...], dict[Pair, int]]:
    """Scripts, and the needles with the place of the one script each is in."""
    scripts = [make_script(seed, frames) for seed in range(videos)]
    homes: dict[Pair, list[int]] = {}
    for at, script in enumerate(scripts):
        for needle in script.needles:
            if needle.role != "count":
                homes.setdefault(needle.thing.pair, []).append(at)
    rng = np.random.default_rng(videos)
    pairs = sorted(homes)
    chosen = [pairs[at] for at in sorted(rng.permutation(len(pairs))[: len(pairs) // 2])]
    owners = {pair: homes[pair][rng.integers(len(homes[pair]))] for pair in chosen}
    return tuple(_without_others(script, at, owners) for at, script in enumerate(scripts)), owners


def _without_others(script: Script, at: int, owners: dict[Pair, int]) -> Script:
    """The script without the needles of other videos."""
    gone = {pair for pair, owner in owners.items() if owner != at}
    return replace(
        script,
        events=tuple(event for event in script.events if event.thing.pair not in gone),
        needles=tuple(needle for needle in script.needles if needle.thing.pair not in gone),
    )


def _questions(stream: Remembered, pair: Pair) -> list[Sought]:
    asked = [
        question
        for question in stream.questions
        if question.kind in _KINDS and [event.thing.pair for event in question.events] == [pair]
    ]
    return [
        Sought(
            question=question,
            stream=stream.opened.stream_id,
            blocks=stream.blocks_of(question.events[0]) - {stream.num_blocks},
        )
        for question in asked
    ]
