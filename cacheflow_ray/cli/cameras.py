"""The demo's two cameras in the synthetic world, and ten questions about what they saw, with the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cacheflow_ray.types import TimeRange
    from cacheflow_ray.world import Question, Script

#: Stream -> seed of its script.
CAMERAS = {"camera-1": 11, "camera-2": 12}

SECONDS = 600
FPS = 5.0
WIDTH, HEIGHT = 384, 216

#: Kinds of the questions about each camera, asked in this order.
KINDS = {
    "camera-1": ("number", "color", "yes", "order", "count"),
    "camera-2": ("where", "shape", "no"),
}

#: A time-filtered question looks this far around what it is about, seconds.
_AROUND_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question of the demo.

    Args:
        truth: the right answer; None where nobody knows (the user's own video).
        shown: when it can be seen; empty where it is about a thing never shown.
        time_range: look only here.
        follows: it continues the conversation of the question before.
    """

    stream: str
    text: str
    truth: str | None = None
    shown: tuple[TimeRange, ...] = ()
    time_range: TimeRange | None = None
    follows: bool = False


def make_cameras(seconds: int = SECONDS) -> dict[str, Script]:
    """What happens before each camera: an event every few seconds, in a room that is never quite still."""
    from cacheflow_ray.world import Difficulty, make_script

    difficulty = Difficulty.level(0.5)
    return {name: make_script(seed, round(seconds * FPS), difficulty, fps=FPS) for name, seed in CAMERAS.items()}


def film_cameras(
    cameras: dict[str, Script], folder: Path, progress: Callable[[str], Callable[[int, int], None]]
) -> dict[str, Path]:
    """Film them as H.264 files in `folder`, all at once; their paths by name.

    Args:
        progress: of what is counted, to be called with (done, total), from any thread.
    """
    from cacheflow_ray.world import Canvas, film

    paths = {name: folder / f"{name}.mp4" for name in cameras}

    def one(name: str) -> None:
        canvas = Canvas(width=WIDTH, height=HEIGHT)
        film(cameras[name], paths[name], canvas, progress=progress(f"frames of {name}"))

    with ThreadPoolExecutor(len(cameras)) as pool:
        list(pool.map(one, cameras))
    return paths


def make_asked(cameras: dict[str, Script]) -> list[Asked]:
    """One question of each kind, then one within a time range and, last, one that says "it" of the one before."""
    from cacheflow_ray.types import TimeRange
    from cacheflow_ray.world import follow_up, make_questions

    asked = []
    for name, script in cameras.items():
        questions = list(make_questions(script, per_kind=4))
        asked += [_asked(name, _take(questions, kind)) for kind in KINDS[name]]
    narrow = _take(questions, "number")
    ((start_s, end_s),) = narrow.truth
    around = TimeRange(start_s=max(start_s - _AROUND_S, 0.0), end_s=end_s + _AROUND_S)
    asked.append(_asked(name, narrow, time_range=around))
    again = follow_up(script, narrow)
    if again is not None:
        asked.append(_asked(name, again, time_range=around, follows=True))
    return asked


def _take(questions: list[Question], kind: str) -> Question:
    """The first question of a kind (of "yes" and "no": of the kind yesno with that answer); it is taken out."""
    wanted, answer = ("yesno", kind) if kind in ("yes", "no") else (kind, None)
    found = next(_matching(questions, wanted, answer))
    questions.remove(found)
    return found


def _matching(questions: Sequence[Question], kind: str, answer: str | None) -> Iterator[Question]:
    standing = kind == "number"  # a thing that stands can be asked for its place next
    return (
        question
        for question in questions
        if question.kind == kind
        and answer in (None, question.answer)
        and not (standing and question.events[0].path.moves)
    )


def _asked(stream: str, question: Question, time_range: TimeRange | None = None, follows: bool = False) -> Asked:
    from cacheflow_ray.types import TimeRange

    return Asked(
        stream=stream,
        text=question.text,
        truth=question.answer,
        shown=tuple(TimeRange(start_s=start_s, end_s=end_s) for start_s, end_s in question.truth),
        time_range=time_range,
        follows=follows,
    )
