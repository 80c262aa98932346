"""Every word the world's questions and answers are made of."""

from __future__ import annotations

from cacheflow_ray.world.things import COLOURS, DIGITS, PLACES, SHAPES

YES, NO = "yes", "no"

#: Words of the questions that name no thing.
FRAME_WORDS = (
    *("what", "which", "where", "how", "many", "times", "did", "was", "came", "appear"),
    *("color", "shape", "number", "thing", "first", "the", "or", "with", "on", "it"),
)


def vocabulary() -> tuple[str, ...]:
    """All words, each once, in an order that does not change: split texts at spaces alone ("top-left" is one word)."""
    return (*FRAME_WORDS, YES, NO, *COLOURS, *SHAPES, *DIGITS, *PLACES)
