"""Progress on stderr: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from cacheflow_ray.cli.output import clock, err_console

if TYPE_CHECKING:
    from cacheflow_ray.engine import IngestProgress


@dataclass(slots=True)
class _Watched:
    """One stream's bar, and where this run of it began: what a resumed stream found is not its own speed."""

    task: TaskID
    first: IngestProgress
    last: IngestProgress
    last_line_s: float = 0.0


@dataclass(slots=True)
class ProgressView:
    """Shows every `IngestProgress` it is called with; a context manager.

    Args:
        line_interval_s: seconds between two lines about one stream when stderr is not a terminal.
    """

    line_interval_s: float = 5.0
    _bars: Progress = field(default_factory=lambda: _bars())
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bars.stop()

    def __call__(self, now: IngestProgress) -> None:
        watched = self._watched.get(now.stream)
        if watched is None:
            task = self._bars.add_task(now.stream, text="")
            watched = self._watched[now.stream] = _Watched(task, now, now, time.monotonic())
        watched.last = now
        text = describe(watched.first, now)
        done, total = how_far(now)
        self._bars.update(watched.task, completed=done, total=total, text=text)
        if not self._bars.console.is_terminal and time.monotonic() - watched.last_line_s >= self.line_interval_s:
            watched.last_line_s = time.monotonic()
            self._bars.console.print(f"{now.stream}: {text}", markup=False, highlight=False, soft_wrap=True)


def describe(first: IngestProgress, now: IngestProgress) -> str:
    """'0:42 of 3:10 · 31.2 frames/s · 18 % of tokens kept · 0:12 left'; speed and time left count from `first`."""
    parts = [clock(now.position_s) + (f" of {clock(now.duration_s)}" if now.duration_s else "")]
    seconds = now.elapsed_s - first.elapsed_s
    if now.frames > first.frames and seconds > 0:
        parts.append(f"{(now.frames - first.frames) / seconds:.1f} frames/s")
    if now.tokens_seen:
        parts.append(f"{100 * now.tokens_kept / now.tokens_seen:.0f} % of tokens kept")
    left_s = time_left_s(first, now)
    if left_s is not None:
        parts.append(f"{clock(round(left_s))} left")
    return " · ".join(parts)


def time_left_s(first: IngestProgress, now: IngestProgress) -> float | None:
    """Seconds to the end at the pace since `first`; None while the length or the pace is not known."""
    done, total = how_far(now)
    moved = done - how_far(first)[0]
    if total is None or moved <= 0:
        return None
    return max(0.0, total - done) * (now.elapsed_s - first.elapsed_s) / moved


def how_far(now: IngestProgress) -> tuple[float, float | None]:
    """Done and total: seconds of video where its length is known, else frames."""
    if now.duration_s is not None:
        return now.position_s, now.duration_s
    return now.frames, now.total_frames


def _bars() -> Progress:
    console = err_console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@dataclass(slots=True)
class CountView:
    """A bar for each thing counted on a terminal, a line now and then elsewhere; a context manager."""

    line_interval_s: float = 10.0
    _bars: Progress = field(default_factory=lambda: _count_bars())
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _last_line_s: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bars.stop()

    def of(self, what: str) -> _Told:
        """What is to be called with (done, total)."""
        return _Told(self, what)

    def show(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what)
        self._bars.update(self._tasks[what], completed=done, total=total)
        if not self._bars.console.is_terminal and time.monotonic() - self._last_line_s >= self.line_interval_s:
            self._last_line_s = time.monotonic()
            self._bars.console.print(f"{done} of {total} {what}", markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Told:
    view: CountView
    what: str

    def __call__(self, done: int, total: int) -> None:
        self.view.show(self.what, done, total)


def _count_bars() -> Progress:
    console = err_console()
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
