"""How much of the service one run measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSizes:
    """How much to measure.

    Args:
        streams: pushed at once wherever many are.
        frames: of each of them where a whole ingest is timed; rounds: of it, service and engine in turn.
        message_bytes, window, channels: of what the gateway alone is sent: so many calls at once, each with so many
            messages on their way.
        messages: of each call; message_rounds: of each kind of server.
        crowd, crowd_s: streams that are to get equal shares, and for how long they are watched.
        batch_s, batch_rounds: how long many streams and one are watched in turn, and how often.
        questions, questions_per_s: asked at that rate while nothing else goes on, and again while much does.
        asked: questions asked from afar and in this process in turn.
    """

    streams: int = 16
    frames: int = 160
    rounds: int = 2
    message_bytes: int = 100_000
    window: int = 32
    channels: int = 4
    messages: int = 600
    message_rounds: int = 5
    crowd: int = 64
    crowd_s: float = 10.0
    batch_s: float = 3.0
    batch_rounds: int = 2
    questions: int = 40
    questions_per_s: float = 4.0
    asked: int = 60


QUICK = ServiceSizes()

FULL = ServiceSizes(
    frames=256, rounds=5, messages=2000, message_rounds=9, crowd_s=60.0, batch_s=10.0, batch_rounds=5,
    questions=240, asked=300,
)  # fmt: skip
