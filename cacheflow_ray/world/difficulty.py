"""The dial: how crowded, how alike, how small and how noisy a stream is."""

from __future__ import annotations

from dataclasses import dataclass, field

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world.scenes import Look

#: Larger things would not fit three side by side.
MAX_SIZE = 0.34


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """How hard a stream is; `Difficulty.level` turns all of it with one dial.

    Args:
        needles: at most this many things that questions are about (fewer where the stream is too short); 1..30.
        density: distractor events per second, as far as `at_once` leaves room; needles come on top.
        at_once: most things in one frame; 1..4.
        duration_s: shortest and longest event, in seconds (at least one frame).
        gap_s: least pause between two needle events, so that two appearances are two.
        size: smallest and largest thing, in the scene's shorter side; within 0.15..MAX_SIZE.
        lookalikes: share of distractors chosen to share colour or shape, and the digit where allowed, with a needle.
        moving: share of things that move.
        together: share of single needles that appear together with another needle.
        look: background, light and camera.

    Raises:
        InvalidConfig: a value out of range.
    """

    needles: int = 24
    density: float = 0.2
    at_once: int = 3
    duration_s: tuple[float, float] = (3.0, 6.0)
    gap_s: float = 2.0
    size: tuple[float, float] = (0.28, 0.33)
    lookalikes: float = 0.6
    moving: float = 0.2
    together: float = 0.2
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        shares = (self.lookalikes, self.moving, self.together)
        fine = (
            1 <= self.needles <= 30
            and self.density >= 0
            and 1 <= self.at_once <= 4
            and 0 < self.duration_s[0] <= self.duration_s[1]
            and self.gap_s > 0
            and 0.15 <= self.size[0] <= self.size[1] <= MAX_SIZE
            and all(0 <= share <= 1 for share in shares)
        )
        if not fine:
            raise InvalidConfig(f"a difficulty out of range: {self}", key="difficulty")

    @classmethod
    def level(cls, level: float) -> Difficulty:
        """0: few large still things before a calm wall. 1: crowded, small, alike, noisy, with a camera that shakes.

        Raises:
            InvalidConfig: a level outside 0..1.
        """
        if not 0 <= level <= 1:
            raise InvalidConfig(f"a difficulty level of {level} is not within 0..1", key="difficulty")

        def dial(easy: float, hard: float) -> float:
            return easy + level * (hard - easy)

        look = Look(
            noise=dial(1, 6),
            drift=dial(0, 0.003),
            light=dial(0, 0.12),
            shake=max(dial(-0.008, 0.008), 0),
            scene_s=dial(120, 40),
        )
        return cls(
            density=dial(0.08, 0.5),
            at_once=round(dial(2, 4)),
            duration_s=(dial(4, 2), dial(8, 4)),
            size=(dial(0.31, 0.25), dial(0.335, 0.32)),
            lookalikes=dial(0.2, 0.9),
            moving=dial(0.1, 0.3),
            together=dial(0.1, 0.3),
            look=look,
        )
