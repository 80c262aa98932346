"""What a run has got through, counted where it happens and added up elsewhere."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of some time, or of some processes.

    Args:
        frames, tokens_seen, tokens_kept: encoded.
        video_s: seconds of video they are of.
        decode_s: thread-seconds spent on decoding; encode_s: seconds that encoders were at work.
    """

    frames: int = 0
    tokens_seen: int = 0
    tokens_kept: int = 0
    video_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0

    def __add__(self, other: Self) -> Self:
        return type(self)(**{own.name: getattr(self, own.name) + getattr(other, own.name) for own in fields(self)})


class Meter:
    """Counts of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def add(self, counts: Counts) -> None:
        with self._lock:
            self._counts += counts

    def take(self) -> Counts:
        """What was added since this was called last."""
        with self._lock:
            counts, self._counts = self._counts, Counts()
            return counts
