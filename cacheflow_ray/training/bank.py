"""Streams of the world as the language model will meet them: rendered, seen by the trained tower, thinned.

Made once by all cores; clips are cut and recombined from it, so that rendering and vision cost minutes, not hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from cacheflow_ray.core.dropping import KEEP_ALL, DropRule, drop
from cacheflow_ray.models.family import Loaded
from cacheflow_ray.models.llava_onevision import LlavaVision
from cacheflow_ray.models.word_llava import Sizes, build_word_llava
from cacheflow_ray.training.pictures import FAINT
from cacheflow_ray.world import (
    COLOURS,
    COVERED,
    GRID,
    PLACES,
    SHAPES,
    Canvas,
    Difficulty,
    Look,
    Script,
    frame,
    labels,
    make_script,
    vocabulary,
)

#: An event as numbers: class of colour, shape and digit, place (-1: it moves), first and last frame.
EVENT_DTYPE = np.dtype(
    [("colour", "i1"), ("shape", "i1"), ("digit", "i1"), ("place", "i1"), ("start", "i4"), ("stop", "i4")]
)


#: One stream in so many is not thinned at all: a model that only ever saw changes could not read whole frames.
_WHOLE_EVERY = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamTokens:
    """The kept tokens of one stream.

    Args:
        features: float16 [n, C].
        frame: int32 [n], the token's frame.
        shows: int32 [n, 2] events the token shows most and second most of, -1 where none.
        events: [E] of EVENT_DTYPE.
        num_frames: of the stream.
    """

    features: npt.NDArray[np.float16]
    frame: npt.NDArray[np.int32]
    shows: npt.NDArray[np.int32]
    events: npt.NDArray[Any]
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPlan:
    """What a bank holds.

    Args:
        seed: first seed of its scripts; stream i has seed + i.
        streams, frames: how many, and how long each.
        tau: thresholds are drawn from this range.
        side: of the pictures, pixels.
    """

    seed: int
    streams: int
    frames: int
    tau: tuple[float, float]
    side: int


def make_bank(loaded: Loaded, sizes: Sizes, plan: BankPlan, *, workers: int) -> Iterator[StreamTokens]:
    """The plan's streams in order.

    Args:
        loaded: of `build_word_llava` with `sizes`, its tower trained; every worker makes its own from the weights.
    """
    weights = {name: tensor.detach().clone() for name, tensor in loaded.model.state_dict().items()}
    with get_context("spawn").Pool(workers, _set_up, (weights, sizes, plan)) as pool:
        yield from pool.imap(_stream, range(plan.streams))


_worker: dict[str, Any] = {}


def _set_up(weights: dict[str, torch.Tensor], sizes: Sizes, plan: BankPlan) -> None:
    torch.set_num_threads(1)
    loaded = build_word_llava(vocabulary(), sizes, seed=0)
    loaded.model.load_state_dict(weights)
    _worker.update(vision=LlavaVision(loaded.model, loaded.processor), plan=plan)


def _stream(number: int) -> StreamTokens:
    plan, vision = _worker["plan"], _worker["vision"]
    rng = np.random.default_rng((plan.seed, number, 61))
    script = make_script(plan.seed + number, plan.frames, random_difficulty(rng))
    aspect = (None, 16 / 9, 4 / 3)[int(rng.integers(3))]
    canvas = Canvas(width=plan.side, height=plan.side, aspect=aspect)
    reference_rule: Literal["previous", "last_kept"] = "last_kept" if rng.random() < 0.5 else "previous"
    tau = KEEP_ALL if number % _WHOLE_EVERY == 0 else float(rng.uniform(*plan.tau))
    rule = DropRule(tau=tau, reference=reference_rule)
    pieces, reference = [], None
    for start in range(0, plan.frames, 64):
        shown = range(start, min(start + 64, plan.frames))
        features = torch.stack(vision.encode([[frame(script, index, canvas)] for index in shown]))
        dropped = drop(features, reference, rule)
        reference = dropped.reference
        pieces.append(_kept(script, shown, canvas, features, dropped.keep))
    kept, frames, shows = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return StreamTokens(features=kept, frame=frames, shows=shows, events=_events(script), num_frames=plan.frames)


def random_difficulty(rng: np.random.Generator) -> Difficulty:
    """Anywhere on the dial, each setting by itself."""
    level = Difficulty.level(float(rng.random()))
    return Difficulty(
        density=float(rng.uniform(0.05, 0.5)),
        at_once=int(rng.integers(1, 5)),
        duration_s=level.duration_s,
        size=level.size,
        lookalikes=float(rng.uniform(0.2, 0.9)),
        moving=float(rng.uniform(0, 0.35)),
        together=float(rng.uniform(0, 0.4)),
        look=Look(
            noise=float(rng.uniform(0, 6)),
            drift=float(rng.uniform(0, 0.003)),
            light=float(rng.uniform(0, 0.12)),
            shake=float(rng.choice([0.0, 0.004, 0.008])),
            scene_s=float(rng.choice([40.0, 60.0, 120.0])),
        ),
    )


def _kept(script: Script, shown: range, canvas: Canvas, features: torch.Tensor, keep: torch.Tensor) -> tuple[Any, ...]:
    number = {id(event): at for at, event in enumerate(script.events)}
    shows = np.full((len(shown), GRID * GRID, 2), -1, np.int32)
    for row, index in enumerate(shown):
        active = [number[id(event)] for event in script.active(index)]
        covers = [present.cover.reshape(-1) for present in labels(script, index, canvas).things]
        if covers:
            shows[row] = _most(np.stack(covers), np.asarray(active))
    kept = keep.numpy()
    frames = np.broadcast_to(np.asarray(shown, np.int32)[:, None], kept.shape)
    return features.numpy()[kept].astype(np.float16), frames[kept], shows[kept]


def _most(covers: npt.NDArray[np.float32], active: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """int32 [tokens, 2]: the event a token shows (COVERED or more of it), and another it shows anything of."""
    order = np.argsort(-covers, axis=0, kind="stable")
    best = np.take_along_axis(covers, order, axis=0)
    shows = np.full((covers.shape[1], 2), -1, np.int32)
    shows[:, 0] = np.where(best[0] >= COVERED, active[order[0]], -1)
    if len(active) > 1:
        shows[:, 1] = np.where(best[1] >= FAINT, active[order[1]], -1)
    faint = (best[0] >= FAINT) & (best[0] < COVERED)
    shows[faint, 1] = active[order[0]][faint]
    return shows


def _events(script: Script) -> npt.NDArray[Any]:
    rows = [
        (
            COLOURS.index(event.thing.colour), SHAPES.index(event.thing.shape), event.thing.digit,
            -1 if event.place is None else PLACES.index(event.place), event.start, event.stop,
        )
        for event in script.events
    ]  # fmt: skip
    return np.array(rows, EVENT_DTYPE)
