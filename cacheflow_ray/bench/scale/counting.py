"""What an ingest does, counted from the outside: frames, blocks, calls, commits. The same before a run and after."""

from __future__ import annotations

import math

from cacheflow_ray.bench.scale.sizes import SOURCE_FPS, Ingests
from cacheflow_ray.models.family import VISION_BATCH


def amounts(ingests: Ingests, blocks: float) -> dict[str, float]:
    """Counts of a whole ingest of `ingests.streams` streams that leave `blocks` full blocks in all.

    A step takes VISION_BATCH frames of every stream. Streams that have a block ready share a call of the language
    model, and a step with any block ends in one commit: with r blocks a stream and step, the whole part of r is a call
    each, and what is left comes together in 1 - (1 - rest)^streams of the steps.
    """
    frames = ingests.streams * ingests.frames
    steps = math.ceil(ingests.frames / VISION_BATCH)
    each = blocks / ingests.streams / steps
    whole = math.floor(each)
    some = 1 - (1 - (each - whole)) ** ingests.streams
    return {
        "streams": float(ingests.streams),
        "frames": float(frames),
        "megapixels": frames * ingests.megapixels,
        "blocks": blocks,
        "calls": steps * (whole + some),
        "commits": steps * (1.0 if whole else some) + 1,
        "source_megapixels": frames * SOURCE_FPS * ingests.megapixels,
    }


def full_blocks(ingests: Ingests, keep: float, patches: int, block_tokens: int) -> int:
    """Full blocks of all streams. `keep`: of the frames after a stream's first, which is kept whole."""
    return ingests.streams * math.floor((1 + keep * (ingests.frames - 1)) * patches / block_tokens)


def keep_after_first(keep: float, frames: int) -> float:
    """The keep rate of all frames but the first, of a stream of so many."""
    return max(0.0, keep * frames - 1) / max(1, frames - 1)
