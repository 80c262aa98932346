"""Frames of the world with what every token of them shows, rendered by all cores, for training the vision tower."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from cacheflow_ray.world import COVERED, GRID, Canvas, Labels, random_room, train_frame

#: Targets of a token, each a class number or NOTHING.
TARGETS = ("colour", "shape", "digit", "place")

#: A token shows the thing that covers most of it, if COVERED or more; below this share it shows nothing.
FAINT = 0.05

#: A token without a thing, and one that is neither with nor without.
NOTHING, UNCLEAR = -1, -2

_PER_JOB = 128
_PER_ROOM = 8
_ASPECTS = (None, 16 / 9, 4 / 3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """N frames.

    Args:
        images: uint8 [N, side, side, 3].
        targets: int16 [N, tokens, 4] in the order of TARGETS.
        family: int16 [N], the background's.
    """

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int16]
    family: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.images)


def render_pictures(seed: int, count: int, side: int, *, workers: int) -> Iterator[Pictures]:
    """About `count` random frames in pieces, the same for the same arguments whatever the number of workers."""
    jobs = [(seed, number, side) for number in range(-(-count // _PER_JOB))]
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_render, jobs)


def join(pieces: list[Pictures]) -> Pictures:
    """Pieces end to end."""
    parts = ("images", "targets", "family")
    return Pictures(**{name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in parts})


def token_targets(shown: Labels) -> npt.NDArray[np.int16]:
    """int16 [GRID * GRID, 4]: what each token shows."""
    targets = np.full((GRID * GRID, len(TARGETS)), NOTHING, np.int16)
    best = np.zeros(GRID * GRID, np.float32)
    for present in shown.things:
        cover = present.cover.reshape(-1)
        own = cover > best
        targets[own] = (present.colour, present.shape, present.thing.digit, present.place)
        best = np.maximum(best, cover)
    targets[(best < COVERED) & (best >= FAINT)] = UNCLEAR
    targets[best < FAINT] = NOTHING
    return targets


def _render(job: tuple[int, int, int]) -> Pictures:
    seed, number, side = job
    rng = np.random.default_rng((seed, 51, number))
    images, targets, families = [], [], []
    room = random_room(rng)
    for index in range(_PER_JOB):
        if index % _PER_ROOM == 0:
            room = random_room(rng)
        aspect = _ASPECTS[index // _PER_ROOM % len(_ASPECTS)]
        image, shown = train_frame(rng, Canvas(width=side, height=side, aspect=aspect), room=room)
        images.append(_compressed(image, rng))
        targets.append(token_targets(shown))
        families.append(shown.family)
    return Pictures(images=np.stack(images), targets=np.stack(targets), family=np.asarray(families, np.int16))


def _compressed(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[Any]:
    """A third of the frames as a lossy codec leaves them."""
    if rng.random() > 1 / 3:
        return image
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(30, 90)))
    return np.asarray(Pillow.open(buffer))
