"""A report as tables for people: the paper's layout, measured rows first, published ones marked as such."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cacheflow_ray.eval.benchmark.methods import CACHEFLOW, LAST
from cacheflow_ray.eval.benchmark.report import EvalReport
from cacheflow_ray.eval.benchmark.summary import MethodRow
from cacheflow_ray.published import PublishedRow

_HEADINGS = {
    "method": "left", "model": "left", "source": "left", "accuracy %": "right", "mean of tasks %": "right",
    "score": "right", "drop %": "right", "latency s": "right", "GPU GB": "right", "answered": "right",
}  # fmt: skip

#: Columns that are left out where no row has anything in them.
_OPTIONAL = ("mean of tasks %", "score", "GPU GB")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """Rows under headings (heading -> 'left' or 'right')."""

    title: str
    headings: dict[str, str]
    rows: list[tuple[str, ...]]


def tables(report: EvalReport) -> Iterator[TextTable]:
    """The comparison, then what it comes to per task."""
    yield _comparison(report)
    if len({(row.task, row.group) for row in report.tasks}) > 1:
        yield _per_task(report)


def notes(report: EvalReport) -> Iterator[str]:
    """What must be said beside the tables."""
    for row in report.rows:
        if row.scored < row.questions:
            yield f"{row.method}: {row.scored} of {row.questions} questions scored, {row.answered} answered"
        if row.evidence_recall is not None:
            yield f"{row.method}: {row.evidence_recall:.1f} % of the time that shows the answer was attended to"
        if row.on_time is not None:
            yield f"{row.method}: {row.on_time:.1f} % of proactive answers came within 2 s"
    if report.unjudged:
        yield f"{report.unjudged} answers have no verdict: no reply could be read; the same command tries again"
    yield from (f"{video} is left out: {why}" for video, why in report.skipped.items())
    yield from (f"{video}: {why}" for video, why in report.cut_short.items())
    yield from (f"{text} ({count} answers)" for text, count in report.warnings.items())


def _comparison(report: EvalReport) -> TextTable:
    model = str(report.settings["model"])
    rows = [_measured(row, model, report) for row in report.rows]
    rows += [_published(row) for row in report.published]
    names = list(_HEADINGS)
    empty = {name for name in _OPTIONAL if all(row[names.index(name)] == "-" for row in rows)}
    kept = [place for place, name in enumerate(names) if name not in empty]
    return TextTable(
        title=f"{report.title}, {report.mode}, {report.settings['fps']:g} frames/s, scored by {report.scorer}",
        headings={names[place]: _HEADINGS[names[place]] for place in kept},
        rows=[tuple(row[place] for place in kept) for row in rows],
    )


def _measured(row: MethodRow, model: str, report: EvalReport) -> tuple[str, ...]:
    name = f"last {report.settings['last_frames']} frames" if row.method == LAST else row.method
    return (
        "blind (no video)" if name == "blind" else "CacheFlow" if name == CACHEFLOW else name,
        model, "measured", _number(row.accuracy, 1), _number(row.task_mean, 1), _number(row.score, 2),
        _number(row.drop, 1), _number(row.latency_s, 2), _number(row.gpu_memory_gb, 1),
        f"{row.answered}/{row.questions}",
    )  # fmt: skip


def _published(row: PublishedRow) -> tuple[str, ...]:
    part = f" [{row.part}]" if row.part else ""
    return (
        row.method + part, row.size or "-", "published", _number(row.accuracy, 1), "-", _number(row.score, 2),
        _number(row.drop, 1), _number(row.latency_s, 2), _number(row.gpu_memory_gb, 1), "-",
    )  # fmt: skip


def _per_task(report: EvalReport) -> TextTable:
    methods = [row.method for row in report.rows]
    headings = {"task": "left", "n": "right"} | {f"{method} %": "right" for method in methods}
    rows: list[tuple[str, ...]] = []
    for task, group in dict.fromkeys((row.task, row.group) for row in report.tasks):
        own = [row for row in report.tasks if (row.task, row.group) == (task, group)]
        name = " / ".join(part for part in (group, task) if part) or "(no task)"
        rows.append((name, str(max(row.count for row in own)), *(_number(row.accuracy, 1) for row in own)))
    rows += _groups(report.rows)
    return TextTable(title="per task", headings=headings, rows=rows)


def _groups(measured: Sequence[MethodRow]) -> list[tuple[str, ...]]:
    groups = dict.fromkeys(group for row in measured for group in row.group_means)
    means = [(group, [row.group_means.get(group) for row in measured]) for group in groups]
    means.append(("all", [row.task_mean for row in measured]))
    return [
        (f"mean of tasks: {name}", "", *(_number(value, 1) for value in values))
        for name, values in means
        if any(value is not None for value in values)
    ]


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
