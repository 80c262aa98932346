"""One evaluation from options to report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cacheflow_ray.config import AskOptions, ModelOptions, StreamSettings
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.errors import UsageError
from cacheflow_ray.eval.benchmark.answers import AnswerLog
from cacheflow_ray.eval.benchmark.catalogue import Benchmark, benchmark_named, load_questions
from cacheflow_ray.eval.benchmark.judge import Judge
from cacheflow_ray.eval.benchmark.methods import METHODS, MethodOptions, check_last_frames, check_methods
from cacheflow_ray.eval.benchmark.questions import Mode, Question
from cacheflow_ray.eval.benchmark.report import EvalReport, warnings_of, write_answers
from cacheflow_ray.eval.benchmark.run import Plan, answer_all
from cacheflow_ray.eval.benchmark.scoring import WORD_SCORERS
from cacheflow_ray.eval.benchmark.summary import method_row, task_rows
from cacheflow_ray.eval.benchmark.verdicts import AnswerSet, all_verdicts, judge_all
from cacheflow_ray.published import PUBLISHED
from memory_store.records import JsonValue

#: Version of what settings.json and the lines beside it hold.
FORMAT = 1

JUDGE = "judge"
SCORERS = (JUDGE, *WORD_SCORERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How a benchmark is run; the defaults are the published set-up.

    Args:
        mode: offline or streaming; None takes the benchmark's own.
        methods: names of METHODS.
        limit: questions, the first ones; None takes all.
        fps: frames per second of video.
        tau: a patch is kept when its similarity is below this (CacheFlow §3.1).
        top_k: K, blocks retrieved.
        window_tokens: tokens of the local window; None: 15,000, or half of what a smaller model takes.
        last_frames: frames of the last-frames floor.
        max_new_tokens: longest open answer.
        scorer: of open answers: judge, exact or contains.
        judge: asked by the first of them.
    """

    mode: Mode | None = None
    methods: tuple[str, ...] = tuple(METHODS)
    limit: int | None = None
    fps: float = 0.5
    tau: float = 0.5
    top_k: int = 64
    window_tokens: int | None = None
    last_frames: int = 4
    max_new_tokens: int = 256
    scorer: str = JUDGE
    judge: Judge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchers:
    """Called with (done, total) while answers are made and judged."""

    answering: Callable[[int, int], None] = field(default=lambda done, total: None)
    judging: Callable[[int, int], None] = field(default=lambda done, total: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalJob:
    """One benchmark for one model.

    Args:
        name: of BENCHMARKS.
        place: the benchmark's folder or annotation file.
        out: folder of the answers.
        model, model_options: what answers, and where it runs.
    """

    name: str
    place: Path
    out: Path
    model: str
    model_options: ModelOptions | None = None


def evaluate(job: EvalJob, options: EvalOptions | None = None, watchers: Watchers | None = None) -> EvalReport:
    """Run a benchmark, or go on with it: answers that are there are not made again.

    Raises:
        UsageError: no such benchmark or method, or no judge for open answers; nothing is loaded or written then.
        BadAnnotations, SettingsMismatch, JudgeFailed, ModelError, StoreError.
    """
    options, watchers = options or EvalOptions(), watchers or Watchers()
    benchmark = benchmark_named(job.name)
    _check(benchmark, options)
    questions = load_questions(job.name, job.place, options.limit)
    with VideoMemory.open(job.out / "store", model=job.model, options=job.model_options) as memory:
        backend = Backend(model=memory.model, store=memory.store)
        plan = _plan(benchmark, options, questions, backend)
        check_last_frames(plan.options, backend)
        settings = _settings(job.name, plan, backend)
        log = AnswerLog.open(job.out, settings)
        told = answer_all(backend, plan, log, watchers.answering)
    answers = AnswerSet(questions=questions, methods=plan.methods, log=log)
    judged = None
    if benchmark.is_open and options.scorer == JUDGE and options.judge is not None:
        judged = judge_all(options.judge, answers, job.out, watchers.judging)
    verdicts = all_verdicts(answers, scorer=options.scorer, judged=judged)
    return EvalReport(
        benchmark=job.name,
        title=benchmark.title,
        mode=plan.mode,
        scorer=_scorer(benchmark, options),
        settings=settings,
        rows=[method_row(method, questions, log, verdicts, fps=plan.options.fps) for method in plan.methods],
        tasks=task_rows(questions, plan.methods, verdicts),
        published=PUBLISHED.get(job.name, ()),
        unjudged=0 if judged is None else len(verdicts) - len(judged),
        skipped=told.skipped,
        cut_short=told.cut_short,
        warnings=warnings_of(answers),
        files=_files(benchmark, job.out, answers),
    )


def _check(benchmark: Benchmark, options: EvalOptions) -> None:
    check_methods(options.methods)
    if options.scorer not in SCORERS:
        raise UsageError(f"scorer: {options.scorer!r} is not allowed; allowed: {', '.join(SCORERS)}")
    if benchmark.is_open and options.scorer == JUDGE and options.judge is None:
        raise UsageError(
            f"{benchmark.title} has open answers: give --judge URL and --judge-model NAME (its key in "
            "CACHEFLOW_JUDGE_KEY), or --scorer exact or contains"
        )


def _plan(benchmark: Benchmark, options: EvalOptions, questions: Sequence[Question], backend: Backend) -> Plan:
    return Plan(
        questions=questions,
        methods=options.methods,
        mode=options.mode or benchmark.mode,
        options=_method_options(options, backend),
        open_tokens=options.max_new_tokens,
    )


def _method_options(options: EvalOptions, backend: Backend) -> MethodOptions:
    """The published set-up; what it leaves open (block size, summary, merge) is as the checkpoint recommends."""
    model = backend.model
    settings = model.recommended.stream_settings(StreamSettings(fps=options.fps, tau=options.tau))
    tokens = model.default_window_tokens if options.window_tokens is None else options.window_tokens
    blocks = max(1, tokens // (settings.block_size or model.default_block_size))
    asked = AskOptions(top_k=options.top_k, candidates=None, window_blocks=None)
    return MethodOptions(
        settings=settings.model_copy(update={"window_blocks": blocks}),
        ask=model.recommended.ask_options(asked),
        last_frames=options.last_frames,
    )


def _settings(name: str, plan: Plan, backend: Backend) -> dict[str, JsonValue]:
    """What the answers depend on. Methods and limit are not among it: other ones only add answers."""
    model, given, ask = backend.model, plan.options.settings, plan.options.ask
    return {
        "format": FORMAT,
        "benchmark": name,
        "mode": plan.mode,
        "model": model.name,
        "fingerprint": model.fingerprint,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        **given.model_dump(),
        "top_k": ask.top_k,
        "ranking": ask.ranking,
        "merge": ask.merge,
        "stop_ratio": ask.stop_ratio,
        "last_frames": plan.options.last_frames,
        "max_new_tokens": plan.open_tokens,
    }


def _scorer(benchmark: Benchmark, options: EvalOptions) -> str:
    if not benchmark.is_open:
        return "its own answers"
    return f"judge {options.judge.model}" if options.scorer == JUDGE and options.judge else options.scorer


def _files(benchmark: Benchmark, out: Path, answers: AnswerSet) -> dict[str, str]:
    files = {"answers": str(out / "answers.jsonl")}
    for method in answers.methods if benchmark.answers_file else ():
        path = out / f"{method}.csv"
        write_answers(path, method, answers.questions, answers.log)
        files[f"table of {method}"] = str(path)
    return files
