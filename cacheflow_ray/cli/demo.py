"""`cacheflow demo`: the whole way of a video through the memory, in one command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.ask import answer, tell
from cacheflow_ray.cli.ingest import make_jobs, stream_names, watch
from cacheflow_ray.cli.ingest import tell as tell_report
from cacheflow_ray.cli.inspect import picture_evidence, picture_timeline
from cacheflow_ray.cli.memory import open_memory
from cacheflow_ray.cli.options import Json, ModelChoice, Place, flattened
from cacheflow_ray.cli.output import Output, plural, to_json
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.engine import AnswerResult, IngestJob, IngestReport, VideoMemory

EPILOG = """Examples:

$ cacheflow demo

$ cacheflow demo --video holiday.mp4 --ask "What is on the table?" """

#: What the demo asks about its own clips: (stream, question).
QUESTIONS = (
    ("shapes", "What colour is the ball?"),
    ("shapes", "Which shape crosses the dark room?"),
    ("cards", "Which number is on the red card?"),
)
QUESTION_OF_ANY_VIDEO = "What happens in this video?"

RANDOM_WEIGHTS = (
    "note: this model has random weights. It has learned nothing, so its answers mean nothing yet; "
    "decoding, dropping, blocks, retrieval and evidence are the real thing."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the demo shows and where it leaves its files."""

    video: Annotated[
        Path | None, typer.Option("--video", metavar="FILE", help="Your own video instead of the two clips.")
    ] = None
    ask: Annotated[str | None, typer.Option("--ask", metavar="Q", help="A question about your video.")] = None
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for clips, store and pictures.")] = Path(
        "demo-out"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """What one run shows: what is ingested, and (stream, question) pairs."""

    jobs: list[IngestJob]
    questions: list[tuple[str, str]]


def register(app: typer.Typer) -> None:
    app.command("demo", help="Ingest videos, ask about them and show the evidence.", epilog=EPILOG)(flattened(demo))


def demo(script: Script, place: Place, model: ModelChoice, as_json: Json = False) -> None:
    output = Output(as_json=as_json)
    show = prepare(script, output)
    own_store = place.data is None
    store = Place(data=script.out / "store") if own_store else place
    with open_memory(store, model) as memory:
        if own_store and script.video is None:
            forget(memory, [job.stream for job in show.jobs])
        output.note(f"ingesting {plural(len(show.jobs), 'stream')} at once")
        reports = watch(memory, show.jobs)
        for report in reports:
            tell_report(report, output)
        results = [ask_one(memory, stream, question, output) for stream, question in show.questions]
        pictures = draw(memory, show, results, script.out)
        random_weights = memory.model.name.startswith("random:")
    if random_weights:
        output.say(f"\n{RANDOM_WEIGHTS}")
    output.say("\n" + summary(reports, results, pictures))
    asked = zip(show.questions, results, strict=True)
    answers = [{"stream": stream, "question": question, **to_json(result)} for (stream, question), result in asked]
    output.result({"streams": reports, "answers": answers, "pictures": pictures, "random_weights": random_weights})


def prepare(script: Script, output: Output) -> Show:
    """Film the clips, or take the user's video. Raises UsageError for a question without a video."""
    from cacheflow_ray.cli.clips import FPS, render_clips
    from cacheflow_ray.config import StreamSettings

    if script.video is None and script.ask is not None:
        raise UsageError("--ask asks about your own video: name it with --video")
    script.out.mkdir(parents=True, exist_ok=True)
    if script.video is not None:
        (stream,) = stream_names([str(script.video)], None)
        question = script.ask if script.ask is not None else QUESTION_OF_ANY_VIDEO
        jobs = make_jobs([str(script.video)], [stream], None, {})
        return Show(jobs=jobs, questions=[(stream, question)])
    output.note(f"filming two short clips in {script.out}")
    clips = render_clips(script.out)
    jobs = make_jobs([str(path) for path in clips.values()], list(clips), StreamSettings(fps=FPS, window_blocks=4), {})
    return Show(jobs=jobs, questions=list(QUESTIONS))


def forget(memory: VideoMemory, streams: list[str]) -> None:
    """Delete what an earlier demo left in its own store, so that this one shows the ingest again."""
    for info in memory.streams():
        if info.stream in streams:
            memory.delete(info.stream)


def ask_one(memory: VideoMemory, stream: str, question: str, output: Output) -> AnswerResult:
    from cacheflow_ray.config import AskOptions

    output.say(f"\n{stream}: {question}", style="bold")
    result = answer(memory, stream, question, AskOptions(top_k=4, max_new_tokens=16), output)
    tell(result, output)
    return result


def draw(memory: VideoMemory, show: Show, results: list[AnswerResult], folder: Path) -> list[Path]:
    """A timeline of the first stream and the evidence of the first answer."""
    stream, question = show.questions[0]
    timeline, evidence = folder / "timeline.png", folder / "evidence.png"
    picture_timeline(memory, stream, timeline)
    picture_evidence(memory, stream, f"{stream}: {question}", results[0].evidence, evidence)
    return [timeline, evidence]


def summary(reports: list[IngestReport], results: list[AnswerResult], pictures: list[Path]) -> str:
    seen = sum(report.tokens_seen for report in reports)
    kept = sum(report.tokens_kept for report in reports)
    answer_ms = sum(result.timings["total"] for result in results) / len(results)
    return (
        f"demo: {plural(len(reports), 'stream')}, {plural(sum(report.frames for report in reports), 'frame')}, "
        f"{100 * kept / max(seen, 1):.1f} % of tokens kept, {plural(sum(r.blocks for r in reports), 'block')}; "
        f"{plural(len(results), 'question')} at {answer_ms:.0f} ms each; pictures: {', '.join(map(str, pictures))}"
    )
