"""Sampling of frames at a steady rate, by presentation time and causally."""

from __future__ import annotations

import math

#: Containers round timestamps; half a tick is forgiven, up to half of Matroska's millisecond.
_MAX_TOLERANCE_S = 0.5e-3


class Grid:
    """Takes a picture when its time reaches the next grid point not yet passed.

        grid      |       |       |       |       |        period = 1 / fps, anchored at the first picture
        pictures  x  .  . .x   .   .        x   . x        x taken: one per interval, the first to reach it;
                                                           a gap passes several points and yields one picture

    Only the past decides, so a live stream and a file sample alike; timestamps are kept as they are.

    Args:
        fps: frames per second to take; None takes every picture.
        tick_s: resolution of the timestamps: a picture 0.3 ms early in a container of 1 ms ticks is on time.
    """

    def __init__(self, fps: float | None, tick_s: float = 0.0) -> None:
        self._fps = fps
        self._tolerance_s = min(tick_s / 2, _MAX_TOLERANCE_S) + 1e-9
        self._anchor_s: float | None = None
        self._next_idx = 0

    def takes(self, timestamp_s: float) -> bool:
        """Whether the picture of this time is taken; times must be given in increasing order."""
        if self._fps is None:
            return True
        if self._anchor_s is None:
            self._anchor_s = timestamp_s
        reached = math.floor((timestamp_s - self._anchor_s + self._tolerance_s) * self._fps)
        if reached < self._next_idx:
            return False
        self._next_idx = reached + 1
        return True

    def go_on(self, first_s: float) -> None:
        """Take the next picture, whichever it is, and go on from there as in a run whose first was at `first_s`."""
        self._anchor_s, self._next_idx = first_s, 0
