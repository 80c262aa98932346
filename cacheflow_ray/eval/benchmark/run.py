"""A benchmark run: video after video, moment after moment, every method; each answer is kept as it is made.

questions of a video, by moment   |--frames-->| ask |--frames-->| ask | ...
streaming                          up to t1           up to t2           frames after t are not seen yet
offline                            all of it, then every question
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.wording import Wording
from cacheflow_ray.errors import MediaError
from cacheflow_ray.eval.benchmark.answers import AnswerLog, AnswerRecord
from cacheflow_ray.eval.benchmark.methods import (
    CACHEFLOW,
    METHODS,
    MethodOptions,
    Session,
    Words,
    forget,
    peak_memory,
    watching,
)
from cacheflow_ray.eval.benchmark.questions import Mode, OpenAnswer, Proactive, Question
from cacheflow_ray.eval.benchmark.scoring import read_yes

#: Longest answer where a letter, a number or yes or no is wanted (ReKV's), tokens.
SHORT_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked of whom.

    Args:
        questions: in the order of the benchmark.
        methods: names of METHODS.
        mode: when they are asked.
        options: of the methods.
        open_tokens: longest open answer.
    """

    questions: Sequence[Question]
    methods: tuple[str, ...]
    mode: Mode
    options: MethodOptions
    open_tokens: int


@dataclass(slots=True, kw_only=True)
class Told:
    """What became of a run beside its answers: videos left out, and videos that ended early, each with why."""

    skipped: dict[str, str] = field(default_factory=dict)
    cut_short: dict[str, str] = field(default_factory=dict)


#: Called after every answer with how many there are and how many there will be.
Watcher = Callable[[int, int], None]


def answer_all(backend: Backend, plan: Plan, log: AnswerLog, watch: Watcher = lambda done, total: None) -> Told:
    """Make every answer that is not in the log. A video of which nothing can be decoded is left out, and told.

    Raises:
        SettingsMismatch: a question has changed since it was answered.
        InvalidFeatures, QuestionTooLong, StoreError.
    """
    for question in plan.questions:
        log.check(question.question_id, question.digest)
    told, total = Told(), len(plan.questions) * len(plan.methods)
    done = sum((question.question_id, method) in log for question in plan.questions for method in plan.methods)

    def keep(record: AnswerRecord) -> None:
        nonlocal done
        log.append(record)
        done += 1
        watch(done, total)

    watch(done, total)
    for video, questions in _by_video(plan.questions).items():
        try:
            _answer_video(backend, plan, video, questions, log, keep, told)
        except MediaError as error:
            told.skipped[str(video)] = str(error)
    return told


def _by_video(questions: Sequence[Question]) -> dict[Path, list[Question]]:
    grouped: dict[Path, list[Question]] = {}
    for question in questions:
        grouped.setdefault(question.video, []).append(question)
    return grouped


def _answer_video(
    backend: Backend, plan: Plan, video: Path, questions: Sequence[Question], log: AnswerLog,
    keep: Callable[[AnswerRecord], None], told: Told,
) -> None:  # fmt: skip
    def undone(question: Question) -> list[str]:
        return [method for method in plan.methods if (question.question_id, method) not in log]

    open_questions = [question for question in questions if undone(question)]
    if not open_questions:
        return
    moments = list(_moments(open_questions, plan.mode))
    seen_by = {method for question in open_questions for method in undone(question)}
    first_s = min((at for at, question in moments if CACHEFLOW in undone(question)), default=math.inf)
    with watching(backend, plan.options, video, seen_by, first_s) as session:
        for at_s, question in moments:
            methods = undone(question)
            if methods:
                session.advance(at_s)
            for method in methods:
                record = _ask(session, plan, question, method, at_s)
                if record is not None:
                    keep(record)
        if session.watched is not None and session.watched.warning is not None:
            told.cut_short[str(video)] = session.watched.warning
        forget(backend, session.stream)


def _moments(questions: Sequence[Question], mode: Mode) -> Iterator[tuple[float, Question]]:
    """(seconds, question) in the order of time; of one moment in the order of the benchmark."""
    pairs = [(at_s, question) for question in questions for at_s in question.moments_s(mode)]
    yield from sorted(pairs, key=lambda pair: pair[0])


def _ask(session: Session, plan: Plan, question: Question, method: str, at_s: float) -> AnswerRecord | None:
    """An answer; None where a proactive one's moment has not come by its own reckoning."""
    if not isinstance(question.truth, Proactive):
        return _asked(session, plan, question, method, at_s, _words(question, plan.open_tokens))
    gate = Words(prompt=question.truth.gate, wording=Wording(looked_for=question.prompt), max_new_tokens=SHORT_TOKENS)
    ready = _asked(session, plan, question, method, at_s, gate)
    if read_yes(ready.text):
        return _asked(session, plan, question, method, at_s, _words(question, plan.open_tokens), answered_at_s=at_s)
    return ready if at_s == question.moments_s(plan.mode)[-1] else None


def _words(question: Question, open_tokens: int) -> Words:
    is_long = isinstance(question.truth, OpenAnswer | Proactive)
    return Words(
        prompt=question.prompt,
        wording=Wording(looked_for=question.looked_for, opening=question.opening),
        max_new_tokens=open_tokens if is_long else SHORT_TOKENS,
    )


def _asked(
    session: Session, plan: Plan, question: Question, method: str, at_s: float, words: Words,
    *, answered_at_s: float | None = None,
) -> AnswerRecord:  # fmt: skip
    started = perf_counter()
    with peak_memory(session.backend) as peak:
        result = METHODS[method](session, words)
    latency_s = perf_counter() - started
    is_memory = method == CACHEFLOW and session.writer is not None
    counters = session.writer.state.counters if is_memory and session.writer is not None else None
    watched = [session.peak_bytes] if is_memory and session.peak_bytes is not None else []
    return AnswerRecord(
        question_id=question.question_id,
        method=method,
        asked=question.digest,
        task=question.task,
        asked_at_s=None if math.isinf(at_s) else at_s,
        answered_at_s=answered_at_s,
        text=result.text,
        latency_s=latency_s,
        context_tokens=result.usage.context_tokens,
        tokens_seen=counters.tokens_seen if counters else 0,
        tokens_kept=counters.tokens_kept if counters else 0,
        gpu_memory_bytes=max(peak + watched) if peak else None,
        evidence=tuple((item.start_s, item.end_s) for item in result.evidence),
        warnings=result.warnings,
    )
