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

from cacheflow_ray.engine import AnswerResult
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
    run, told = _Run(backend, plan, log, watch), Told()
    run.count(sum(len(plan.methods) - len(run.undone(question)) for question in plan.questions))
    for video, questions in _by_video(plan.questions).items():
        try:
            warning = run.answer_video(video, questions)
        except MediaError as error:
            told.skipped[str(video)] = str(error)
        else:
            told.cut_short |= {} if warning is None else {str(video): warning}
    return told


def _by_video(questions: Sequence[Question]) -> dict[Path, list[Question]]:
    grouped: dict[Path, list[Question]] = {}
    for question in questions:
        grouped.setdefault(question.video, []).append(question)
    return grouped


def _moments(questions: Sequence[Question], mode: Mode) -> Iterator[tuple[float, Question]]:
    """(seconds, question) in the order of time; of one moment in the order of the benchmark."""
    pairs = [(at_s, question) for question in questions for at_s in question.moments_s(mode)]
    yield from sorted(pairs, key=lambda pair: pair[0])


@dataclass(slots=True, eq=False)
class _Run:
    """What every video of a run is answered with. `done`: answers there are."""

    backend: Backend
    plan: Plan
    log: AnswerLog
    watch: Watcher
    done: int = 0

    def count(self, more: int) -> None:
        """So many more answers are there: tell how far it is."""
        self.done += more
        self.watch(self.done, len(self.plan.questions) * len(self.plan.methods))

    def undone(self, question: Question) -> list[str]:
        """The methods that have not answered it yet."""
        return [method for method in self.plan.methods if (question.question_id, method) not in self.log]

    def answer_video(self, video: Path, questions: Sequence[Question]) -> str | None:
        """Every answer about one video that is not there yet; what was wrong with the video."""
        moments = [(at_s, one) for at_s, one in _moments(questions, self.plan.mode) if self.undone(one)]
        if not moments:
            return None
        methods = {method for _, question in moments for method in self.undone(question)}
        first_s = min((at_s for at_s, question in moments if CACHEFLOW in self.undone(question)), default=math.inf)
        with watching(self.backend, self.plan.options, video, methods, first_s) as session:
            for at_s, question in moments:
                self.answer(session, question, at_s)
            forget(self.backend, session.stream)
            return None if session.watched is None else session.watched.warning

    def answer(self, session: Session, question: Question, at_s: float) -> None:
        """Watch up to a moment, and ask every method that has not answered."""
        methods = self.undone(question)
        if methods:
            session.advance(at_s)
        for method in methods:
            record = self.ask(session, question, method, at_s)
            if record is not None:
                self.log.append(record)
                self.count(1)

    def ask(self, session: Session, question: Question, method: str, at_s: float) -> AnswerRecord | None:
        """An answer; None where a proactive one's moment has not come by its own reckoning."""
        words = _words(question, self.plan.open_tokens)
        if not isinstance(question.truth, Proactive):
            return _record(question, method, at_s, _timed(session, method, words))
        gate = Words(
            prompt=question.truth.gate, wording=Wording(looked_for=question.looked_for), max_new_tokens=SHORT_TOKENS
        )
        ready = _timed(session, method, gate)
        if read_yes(ready.result.text):
            return _record(question, method, at_s, _timed(session, method, words), answered_at_s=at_s)
        return _record(question, method, at_s, ready) if at_s == question.moments_s(self.plan.mode)[-1] else None


def _words(question: Question, open_tokens: int) -> Words:
    is_long = isinstance(question.truth, OpenAnswer | Proactive)
    return Words(
        prompt=question.prompt,
        wording=Wording(looked_for=question.looked_for, opening=question.opening),
        max_new_tokens=open_tokens if is_long else SHORT_TOKENS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """An answer with what it cost; counts are of the stream it was asked of."""

    result: AnswerResult
    latency_s: float
    gpu_memory_bytes: int | None
    tokens_seen: int = 0
    tokens_kept: int = 0


def _timed(session: Session, method: str, words: Words) -> _Timed:
    started = perf_counter()
    with peak_memory(session.backend) as peak:
        result = METHODS[method](session, words)
    latency_s = perf_counter() - started
    if method != CACHEFLOW or session.writer is None:
        return _Timed(result=result, latency_s=latency_s, gpu_memory_bytes=max(peak, default=None))
    counters = session.writer.state.counters
    return _Timed(
        result=result,
        latency_s=latency_s,
        gpu_memory_bytes=max([*peak, session.peak_bytes or 0]) if peak else None,
        tokens_seen=counters.tokens_seen,
        tokens_kept=counters.tokens_kept,
    )


def _record(
    question: Question, method: str, at_s: float, timed: _Timed, *, answered_at_s: float | None = None
) -> AnswerRecord:
    result = timed.result
    return AnswerRecord(
        question_id=question.question_id,
        method=method,
        asked=question.digest,
        task=question.task,
        asked_at_s=None if math.isinf(at_s) else at_s,
        answered_at_s=answered_at_s,
        text=result.text,
        latency_s=timed.latency_s,
        context_tokens=result.usage.context_tokens,
        tokens_seen=timed.tokens_seen,
        tokens_kept=timed.tokens_kept,
        gpu_memory_bytes=timed.gpu_memory_bytes,
        evidence=tuple((item.start_s, item.end_s) for item in result.evidence),
        warnings=result.warnings,
    )
