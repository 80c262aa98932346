"""`cacheflow eval`: how well it answers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli import drop_study, index_study, library_study, needle, reencode_study
from cacheflow_ray.cli.failures import Interrupted
from cacheflow_ray.cli.options import Json, ModelChoice, flattened
from cacheflow_ray.cli.output import Output
from cacheflow_ray.cli.progress import CountView
from cacheflow_ray.errors import InvalidConfig

if TYPE_CHECKING:
    from cacheflow_ray.eval.benchmark import EvalOptions, EvalReport, Judge

BENCHMARK_EPILOG = """Examples:

$ cacheflow eval benchmark qaego4d --data qaego4d/ --model llava-hf/llava-onevision-qwen2-7b-ov-hf

$ cacheflow eval benchmark rvs-ego --data rvs/ --judge http://localhost:8000/v1 --judge-model my-judge

$ cacheflow eval benchmark activitynet-qa --data anet/ --scorer contains --limit 200

$ cacheflow eval benchmark ovo-bench --data ovo/ --tau 0.75 --out eval-out/ovo-075 --json

--data is the folder with the annotations (or the file itself) and the videos below it. Annotation files:

qaego4d: test_mc.json; mlvu: dev_debug_mc.json or json/*.json; egoschema: full.json or questions.json;

activitynet-qa: test.json; rvs-ego: ego4d_oe.json; rvs-movie: movienet_oe.json; ovo-bench: ovo_bench_new.json;

streamingbench: questions_real.json, questions_omni.json, questions_sqa.json, questions_proactive.json.

After Ctrl-C, a crash or a judge that failed, the same command goes on. The judge's key is read from
CACHEFLOW_JUDGE_KEY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """How a benchmark is run; the defaults are the published set-up."""

    mode: Annotated[
        str | None,
        typer.Option(
            "--mode", metavar="MODE",
            help="offline asks after the whole video, streaming when it reaches the question. Default: as published.",
        ),
    ] = None  # fmt: skip
    methods: Annotated[
        str, typer.Option("--methods", metavar="A,B", help="Rows to measure: cacheflow, blind, last (latest frames).")
    ] = "cacheflow,blind,last"
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N questions.")] = None
    fps: Annotated[float, typer.Option("--fps", metavar="RATE", help="Frames taken per second.")] = 0.5
    tau: Annotated[float, typer.Option("--tau", help="Keep a patch whose similarity is below this.")] = 0.5
    top_k: Annotated[int, typer.Option("--top-k", metavar="K", help="Blocks to retrieve.")] = 64
    window: Annotated[
        int | None,
        typer.Option(
            "--window", metavar="TOKENS", min=1,
            help="Local window. Default: 15000, or half of what a smaller model takes.",
        ),
    ] = None  # fmt: skip
    last_frames: Annotated[int, typer.Option("--last-frames", metavar="N", help="Frames of the row 'last'.")] = 4
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Longest open answer.")
    ] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Who scores open answers."""

    scorer: Annotated[
        str, typer.Option("--scorer", metavar="KIND", help="Of open answers: judge, exact or contains.")
    ] = "judge"
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="URL", help="OpenAI-compatible address, like http://host:8000/v1.")
    ] = None
    judge_model: Annotated[
        str, typer.Option("--judge-model", metavar="NAME", help="The judge's name at that address.")
    ] = ""
    judge_timeout: Annotated[
        float, typer.Option("--judge-timeout", metavar="S", min=0.1, help="Longest wait for one reply.")
    ] = 60.0

    def made(self) -> Judge | None:
        """Raises UsageError."""
        from cacheflow_ray.eval.benchmark import Judge

        if self.judge is None:
            return None
        key = os.environ.get("CACHEFLOW_JUDGE_KEY", "")
        return Judge(url=self.judge, model=self.judge_model, key=key, timeout_s=self.judge_timeout)


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Measure how well it answers.", no_args_is_help=True)
    group.command("benchmark", help="Run a published benchmark on its own files.", epilog=BENCHMARK_EPILOG)(
        flattened(benchmark)
    )
    needle.register(group)
    index_study.register(group)
    library_study.register(group)
    drop_study.register(group)
    reencode_study.register(group)
    app.add_typer(group, name="eval")


def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="qaego4d, mlvu, egoschema, activitynet-qa, rvs-ego, rvs-movie, ovo-bench or streamingbench.",
        ),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of the benchmark's files.")],
    model: ModelChoice,
    set_up: SetUp,
    scoring: Scoring,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the answers. Default: eval-out/NAME.")
    ] = None,
    as_json: Json = False,
) -> None:
    output = Output(as_json=as_json)
    options = _options(set_up, scoring)
    report = _evaluate(name, data, out or Path("eval-out") / name, model, options)
    tell(report, output)
    output.result(report.as_json())


def tell(report: EvalReport, output: Output) -> None:
    """Tables, and what must be said beside them."""
    from cacheflow_ray.eval.benchmark.render import notes, tables

    for table in tables(report):
        output.say(table.title, style="bold")
        output.table(table.headings, table.rows)
        output.say()
    for what, path in report.files.items():
        output.say(f"{what}: {path}", style="dim")
    for note in notes(report):
        output.note(note)


def _options(set_up: SetUp, scoring: Scoring) -> EvalOptions:
    """Raises UsageError."""
    from cacheflow_ray.config import AskOptions, StreamSettings
    from cacheflow_ray.eval.benchmark import EvalOptions

    # Said before a model is loaded: the ranges are the sections' own.
    StreamSettings(fps=set_up.fps, tau=set_up.tau)
    AskOptions(top_k=set_up.top_k, max_new_tokens=set_up.max_new_tokens)
    given: dict[str, Any] = {"mode": set_up.mode} if set_up.mode is not None else {}
    if set_up.mode not in (None, "offline", "streaming"):
        raise InvalidConfig(f"mode: {set_up.mode!r} is not allowed; allowed: offline or streaming", key="mode")
    return EvalOptions(
        methods=tuple(dict.fromkeys(part.strip() for part in set_up.methods.split(",") if part.strip())),
        limit=set_up.limit,
        fps=set_up.fps,
        tau=set_up.tau,
        top_k=set_up.top_k,
        window_tokens=set_up.window,
        last_frames=set_up.last_frames,
        max_new_tokens=set_up.max_new_tokens,
        scorer=scoring.scorer,
        judge=scoring.made() if scoring.scorer == "judge" else None,
        **given,
    )


def _evaluate(name: str, data: Path, out: Path, model: ModelChoice, options: EvalOptions) -> EvalReport:
    """Raises Interrupted on Ctrl-C."""
    from cacheflow_ray.config import Defaults
    from cacheflow_ray.eval.benchmark import EvalJob, Watchers, evaluate

    defaults = Defaults.from_environment()
    job = EvalJob(
        name=name, place=data, out=out, model=model.name(defaults), model_options=model.options(defaults)
    )  # fmt: skip
    try:
        with CountView() as progress:
            watchers = Watchers(answering=progress.of("answers"), judging=progress.of("verdicts"))
            return evaluate(job, options, watchers)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: the answers in {out} are kept; the same command again goes on") from None
