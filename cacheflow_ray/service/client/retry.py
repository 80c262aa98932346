"""Trying again: pauses that grow, and end in time."""

from __future__ import annotations

import asyncio
import random
from time import monotonic

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class Patience:
    """How long one piece of work is tried again, and the pauses between: each twice the last, up to half of it by
    chance, which keeps clients that lost the same server apart when it is back.

    Args:
        seconds: from now, or from the last `renew`, on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Work went on: what is left is as in the beginning."""
        self._until_s = monotonic() + self._seconds
        self._pause_s = FIRST_PAUSE_S

    @property
    def left_s(self) -> float:
        """Seconds left, 0 at least."""
        return max(0.0, self._until_s - monotonic())

    async def pause(self, error: Exception, at_least_s: float | None = None) -> None:
        """Wait before the next try. Raises `error` where no time is left for one."""
        pause_s = max(self._pause_s * random.uniform(0.5, 1.0), at_least_s or 0.0)
        if self.left_s <= pause_s:
            raise error
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s)
