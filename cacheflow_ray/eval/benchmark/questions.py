"""What a benchmark comes down to: questions about videos, each with the moment it is asked at and the truth."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: A StreamingBench model that speaks up this long before or after the truth is on time, seconds.
PROACTIVE_SLACK_S = 2.0

#: How often, and how long after the truth at the latest, a model is asked whether its moment has come, seconds.
PROACTIVE_POLL_S, PROACTIVE_PATIENCE_S = 1.0, 4.0

Mode = Literal["offline", "streaming"]

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of several options is right. `index`: which, from 0; None where the benchmark keeps it to itself."""

    index: int | None
    num_options: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAnswer:
    """Free words that should mean `text`."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class YesNo:
    """A statement that holds or does not."""

    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A number of times."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proactive:
    """The model should say `output` of itself when its moment comes.

    Args:
        output: words that must be in what it says.
        asked_s: when it was told to watch out, seconds of video.
        due_s: when the moment comes.
        gate: the prompt asking whether it has come.
    """

    output: str
    asked_s: float
    due_s: float
    gate: str

    @property
    def moments_s(self) -> tuple[float, ...]:
        """When the model is asked, until it says yes."""
        first, last = self.asked_s + PROACTIVE_POLL_S, self.due_s + PROACTIVE_PATIENCE_S
        return tuple(first + poll * PROACTIVE_POLL_S for poll in range(int((last - first) / PROACTIVE_POLL_S) + 1))


Truth = Choice | OpenAnswer | YesNo | Count | Proactive


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question about one video.

    Args:
        question_id: unique in its benchmark.
        video: the file.
        task: the kind of question accuracy is told by; "" where there is one kind only.
        group: a kind of tasks (OVO-Bench: backward, realtime, forward); "" for none.
        prompt: what the model is asked, instructions and options with it.
        looked_for: the question alone, which retrieval goes by.
        opening: words its answer is made to begin with.
        asked_at_s: seconds of video seen when it is asked; None asks after the whole video.
        windows_s: (start, end) of what shows the answer, seconds, where that is known.
    """

    question_id: str
    video: Path
    task: str
    prompt: str
    looked_for: str
    truth: Truth
    group: str = ""
    opening: str = ""
    asked_at_s: float | None = None
    windows_s: tuple[tuple[float, float], ...] = ()

    @property
    def digest(self) -> str:
        """Of what is asked and what is right: an answer belongs to this question while it stays the same."""
        told = repr((self.prompt, self.looked_for, self.opening, self.truth, self.asked_at_s))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def moments_s(self, mode: Mode) -> tuple[float, ...]:
        """The seconds of video at which it is asked, in order; infinity is the end."""
        if isinstance(self.truth, Proactive):
            return self.truth.moments_s
        return (math.inf,) if mode == "offline" or self.asked_at_s is None else (self.asked_at_s,)
