"""From verdicts to the rows of a table: per method over all, per task, per group of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cacheflow_ray.eval.benchmark.answers import AnswerLog, AnswerRecord
from cacheflow_ray.eval.benchmark.questions import Proactive, Question
from cacheflow_ray.eval.benchmark.scoring import Verdict, is_on_time

Verdicts = Mapping[tuple[str, str], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One method on one task.

    Args:
        task: "" where the benchmark has one kind of question only.
        accuracy: per cent of `count`, the answers of this very task that were scored; None without any.
        score: a judge's mean, 0 to 5.
    """

    task: str
    group: str
    method: str
    accuracy: float | None
    score: float | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """One method on the whole benchmark.

    Args:
        accuracy: per cent of `scored`.
        task_mean: mean of the tasks' accuracies, per cent; None where there are fewer than two.
        group_means: the same within each group of tasks.
        score: a judge's mean, 0 to 5.
        drop: per cent of visual tokens dropped; None where none could be.
        latency_s: mean, from the question to the answer's end.
        gpu_memory_gb: peak, 1e9 bytes; None without a GPU.
        evidence_recall: per cent of the time that shows the answer which was attended to; None where it is not known.
        on_time: per cent of proactive answers within 2 s of their moment; None where there are none.
        questions, answered, scored: how many there are, have an answer, and have a verdict.
    """

    method: str
    accuracy: float | None
    task_mean: float | None
    group_means: Mapping[str, float]
    score: float | None
    drop: float | None
    latency_s: float | None
    gpu_memory_gb: float | None
    evidence_recall: float | None
    on_time: float | None
    questions: int
    answered: int
    scored: int


def task_rows(questions: Sequence[Question], methods: Sequence[str], verdicts: Verdicts) -> list[TaskRow]:
    """Every task of every method, tasks in the order of the benchmark."""
    tasks = dict.fromkeys((question.task, question.group) for question in questions)
    rows: list[TaskRow] = []
    for task, group in tasks:
        own = [question.question_id for question in questions if (question.task, question.group) == (task, group)]
        for method in methods:
            said = [verdicts[key] for name in own if (key := (name, method)) in verdicts]
            scored = [one for one in said if one.correct is not None]
            rows.append(
                TaskRow(
                    task=task, group=group, method=method, accuracy=_accuracy(scored), score=_score(scored),
                    count=len(scored),
                )
            )  # fmt: skip
    return rows


def method_row(
    method: str, questions: Sequence[Question], log: AnswerLog, verdicts: Verdicts, *, fps: float
) -> MethodRow:
    """One method over all questions.

    Args:
        fps: frames per second: a frame stands for the time up to the next one.
    """
    pairs = [(question, log.get(question.question_id, method)) for question in questions]
    answered = [(question, record) for question, record in pairs if record is not None]
    records = [record for _, record in answered]
    scored = [one for record in records if (one := verdicts[record.key]).correct is not None]
    tasks = [row for row in task_rows(questions, [method], verdicts) if row.accuracy is not None]
    memory = [record.gpu_memory_bytes / 1e9 for record in records if record.gpu_memory_bytes is not None]
    return MethodRow(
        method=method,
        accuracy=_accuracy(scored),
        task_mean=_mean(row.accuracy for row in tasks if row.accuracy is not None) if len(tasks) > 1 else None,
        group_means=_group_means(tasks),
        score=_score(scored),
        drop=_drop(answered),
        latency_s=_mean(record.latency_s for record in records),
        gpu_memory_gb=max(memory, default=None),
        evidence_recall=_evidence_recall(answered, 1 / fps),
        on_time=_on_time(answered),
        questions=len(questions),
        answered=len(records),
        scored=len(scored),
    )


def recall(evidence: Iterable[tuple[float, float]], windows: Iterable[tuple[float, float]], frame_s: float) -> float:
    """The share 0..1 of the windows' time that evidence covers, each piece up to the frame after it.

    A window of no length counts as covered or not by its moment.
    """
    merged: list[list[float]] = []
    for start, end in sorted((start, end + frame_s) for start, end in evidence):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    covered = wanted = 0.0
    for start, end in windows:
        if end <= start:
            end = start + 1e-6
        wanted += end - start
        covered += sum(max(0.0, min(end, last) - max(start, first)) for first, last in merged)
    return covered / wanted if wanted else 0.0


def _group_means(tasks: Sequence[TaskRow]) -> dict[str, float]:
    groups = dict.fromkeys(row.group for row in tasks if row.group)
    means = {group: _mean(row.accuracy or 0.0 for row in tasks if row.group == group) for group in groups}
    return {group: mean for group, mean in means.items() if mean is not None}


def _accuracy(scored: Sequence[Verdict]) -> float | None:
    return _mean(100.0 * bool(one.correct) for one in scored)


def _score(scored: Sequence[Verdict]) -> float | None:
    return _mean(one.score for one in scored if one.score is not None)


def _drop(answered: Sequence[tuple[Question, AnswerRecord]]) -> float | None:
    """Per cent dropped, each video as it stood at its last question."""
    last: dict[str, AnswerRecord] = {}
    for question, record in answered:
        before = last.get(str(question.video))
        if record.tokens_seen and (before is None or record.tokens_seen >= before.tokens_seen):
            last[str(question.video)] = record
    seen = sum(record.tokens_seen for record in last.values())
    return 100.0 * (1 - sum(record.tokens_kept for record in last.values()) / seen) if seen else None


def _evidence_recall(answered: Sequence[tuple[Question, AnswerRecord]], frame_s: float) -> float | None:
    return _mean(
        100.0 * recall(record.evidence, question.windows_s, frame_s)
        for question, record in answered
        if question.windows_s and record.evidence
    )


def _on_time(answered: Sequence[tuple[Question, AnswerRecord]]) -> float | None:
    return _mean(
        100.0 * is_on_time(question.truth, record.answered_at_s)
        for question, record in answered
        if isinstance(question.truth, Proactive)
    )


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None
