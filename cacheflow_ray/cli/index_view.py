"""What `cacheflow index` shows while it works, and when it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from cacheflow_ray.cli.output import Output, clock, err_console, plural

if TYPE_CHECKING:
    from cacheflow_ray.archive.records import Trouble
    from cacheflow_ray.archive.report import IndexProgress, IndexReport

#: Troubles listed for people; programs get all.
_LISTED = 20


@dataclass(slots=True)
class IndexView:
    """Shows every `IndexProgress` it is called with: a bar on a terminal, a line now and then elsewhere."""

    line_interval_s: float = 5.0
    _bar: Progress = field(default_factory=lambda: _bar())
    _task: TaskID | None = None
    _last_line_s: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, now: IndexProgress) -> None:
        text = described(now)
        if self._task is None:
            self._task = self._bar.add_task("index", total=1.0, text="")
        self._bar.update(self._task, completed=1 - now.left, text=text)
        if not self._bar.console.is_terminal and time.monotonic() - self._last_line_s >= self.line_interval_s:
            self._last_line_s = time.monotonic()
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def described(now: IndexProgress) -> str:
    """'12 of 300 files · 41.2 video-h/h · 31.5 frames/s · 18 % of tokens kept · 2 failed · 2:10 left'."""
    ended = {state.value: count for state, count in now.states.items()}
    done = sum(ended.values()) - ended["pending"] - ended["running"]
    parts = [f"{done:,} of {sum(ended.values()):,} files"]
    counts = now.counts
    if counts.frames and now.elapsed_s > 0:
        parts.append(f"{counts.video_s / now.elapsed_s:.1f} video-h/h")
        parts.append(f"{counts.frames / now.elapsed_s:.1f} frames/s")
    if counts.tokens_seen:
        parts.append(f"{100 * counts.tokens_kept / counts.tokens_seen:.0f} % of tokens kept")
    if ended["failed"]:
        parts.append(f"{ended['failed']:,} failed")
    if now.time_left_s is not None and now.left:
        parts.append(f"{clock(round(now.time_left_s))} left")
    return " · ".join(parts)


def tell(report: IndexReport, output: Output) -> None:
    """The final report, for people."""
    counts = report.counts
    tell_files(report.files, report.troubles, output)
    kept = f", {100 * counts.tokens_kept / counts.tokens_seen:.1f} % of tokens kept" if counts.tokens_seen else ""
    output.say(
        f"{plural(counts.frames, 'frame')} of {clock(counts.video_s)} of video in {clock(report.busy_s)} "
        f"(with starting {clock(report.elapsed_s)}): {report.video_hours_per_hour:.1f} video-h/h, "
        f"{report.frames_per_s:.1f} frames/s{kept}"
    )
    output.say(
        f"decoding kept {report.decode_utilisation:.2f} threads busy, encoding {report.encode_utilisation:.2f} encoders"
    )
    if report.already_done:
        output.say(f"{plural(report.already_done, 'file')} had been done before")


def tell_files(files: Mapping[str, int], troubles: Sequence[Trouble], output: Output) -> None:
    """How many files are how far, and what is the matter with some."""
    rows = [(state, f"{count:,}") for state, count in files.items() if count]
    if rows:
        output.table({"files": "left", "": "right"}, rows)
    for trouble in troubles[:_LISTED]:
        output.say(f"{trouble.state.value}  {trouble.uri}: {trouble.reason}")
    if len(troubles) > _LISTED:
        output.say(f"... and {len(troubles) - _LISTED:,} more: --json tells them all")


def _bar() -> Progress:
    console = err_console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
