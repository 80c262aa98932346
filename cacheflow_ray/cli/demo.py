"""`cacheflow demo`: the whole way of a video through the memory, in one command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.cameras import SECONDS, Asked, film_cameras, make_asked, make_cameras
from cacheflow_ray.cli.ingest import make_jobs, stream_names, watch
from cacheflow_ray.cli.ingest import tell as tell_report
from cacheflow_ray.cli.inspect import picture_evidence, picture_timeline
from cacheflow_ray.cli.memory import open_memory
from cacheflow_ray.cli.options import Json, ModelChoice, Place, flattened
from cacheflow_ray.cli.output import Output, clock, plural, size, to_json
from cacheflow_ray.cli.progress import CountView
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.engine import AnswerResult, Evidence, IngestJob, IngestReport, VideoMemory
    from cacheflow_ray.types import TimeRange

EPILOG = """Examples:

$ cacheflow demo

$ cacheflow demo --video holiday.mp4 --ask "What is on the table?" --model llava-hf/llava-onevision-qwen2-7b-ov-hf

The bundled model knows coloured shapes and numbered cards and nothing else: your own video wants another model."""

QUESTION_OF_ANY_VIDEO = "What happens in this video?"

RANDOM_WEIGHTS = (
    "note: this model has random weights. It has learned nothing, so its answers mean nothing; "
    "decoding, dropping, blocks, retrieval and evidence are the real thing."
)

#: Longest answer of the demo, tokens.
_ANSWER_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the demo shows and where it leaves its files."""

    video: Annotated[
        Path | None, typer.Option("--video", metavar="FILE", help="Your own video instead of the two cameras.")
    ] = None
    ask: Annotated[str | None, typer.Option("--ask", metavar="Q", help="A question about your video.")] = None
    seconds: Annotated[
        int, typer.Option("--seconds", metavar="S", min=60, help="Length of what the two cameras film.")
    ] = SECONDS
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for videos, store and pictures.")] = Path(
        "demo-out"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """What one run shows: what is ingested, and what is asked."""

    jobs: list[IngestJob]
    asked: list[Asked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer from the memory, beside the same model's answer from the latest blocks alone.

    Args:
        window: None where the question looks at the past only, which no window holds.
    """

    asked: Asked
    memory: AnswerResult
    window: AnswerResult | None

    @property
    def seen(self) -> Evidence | None:
        """The evidence that shows what was asked about; the best there is where none does or nobody knows."""
        items = self.memory.evidence
        hits = (item for item in items for span in self.asked.shown if _meet(item, span))
        return next(hits, items[0] if items else None)


def register(app: typer.Typer) -> None:
    app.command("demo", help="Film two cameras, remember them, ask and show the evidence.", epilog=EPILOG)(
        flattened(demo)
    )


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
        replies = converse(memory, show.asked, output)
        pictures = draw(memory, replies, script.out)
        random_weights = memory.model.name.startswith("random:")
    if random_weights:
        output.say(f"\n{RANDOM_WEIGHTS}")
    output.say("\n" + summary(reports, replies, pictures))
    output.result(
        {
            "streams": reports,
            "answers": [as_json_of(reply) for reply in replies],
            "pictures": pictures,
            "random_weights": random_weights,
        }
    )


def prepare(script: Script, output: Output) -> Show:
    """Film the cameras, or take the user's video. Raises UsageError for a question without a video."""
    if script.video is None and script.ask is not None:
        raise UsageError("--ask asks about your own video: name it with --video")
    script.out.mkdir(parents=True, exist_ok=True)
    if script.video is not None:
        (stream,) = stream_names([str(script.video)], None)
        question = script.ask if script.ask is not None else QUESTION_OF_ANY_VIDEO
        jobs = make_jobs([str(script.video)], [stream], None, {})
        return Show(jobs=jobs, asked=[Asked(stream=stream, text=question)])
    cameras = make_cameras(script.seconds)
    output.note(f"filming {plural(len(cameras), 'camera')} in {script.out}")
    with CountView() as progress:
        films = film_cameras(cameras, script.out, progress.of)
    jobs = make_jobs([str(path) for path in films.values()], list(films), None, {})
    return Show(jobs=jobs, asked=make_asked(cameras))


def forget(memory: VideoMemory, streams: list[str]) -> None:
    """Delete what an earlier demo left in its own store, so that this one shows the ingest again."""
    for info in memory.streams():
        if info.stream in streams:
            memory.delete(info.stream)


def converse(memory: VideoMemory, asked: Sequence[Asked], output: Output) -> list[Reply]:
    """Ask everything in order, of the memory and of the window alone."""
    replies: list[Reply] = []
    for question in asked:
        before = replies[-1] if question.follows else None
        reply = Reply(
            asked=question,
            memory=_ask(memory, question, before.memory.session_id if before else None),
            window=None
            if question.time_range
            else _ask(memory, question, before.window.session_id if before and before.window else None, alone=True),
        )
        tell(reply, output)
        replies.append(reply)
    return replies


def _ask(memory: VideoMemory, asked: Asked, session_id: str | None, *, alone: bool = False) -> AnswerResult:
    """Args: alone: from the window alone, nothing retrieved."""
    from cacheflow_ray.config import AskOptions

    given = {"max_new_tokens": _ANSWER_TOKENS, "time_range": asked.time_range, "session_id": session_id}
    options = AskOptions.model_validate({**given, "top_k": 0} if alone else given)
    return memory.ask(asked.stream, asked.text, options=options).result


def tell(reply: Reply, output: Output) -> None:
    asked, answered = reply.asked, reply.memory
    within = f" (between {_span(asked.time_range)})" if asked.time_range else ""
    output.say(f"\n{asked.stream}: {asked.text}{within}", style="bold")
    seen = reply.seen
    where = "" if seen is None else f"   evidence {clock(seen.start_s)}-{clock(seen.end_s)}"
    more = len(answered.evidence) - 1
    others = f" and {plural(more, 'other stretch')}" if more == 1 else f" and {more} other stretches" if more else ""
    output.say(f"  memory          {answered.text:<14}{where}{others}")
    if asked.truth is not None:
        shown = ", ".join(_span(span) for span in asked.shown) or "never"
        output.say(f"  truth           {asked.truth:<14}   shown {shown}")
    window = "(no window holds that time)" if reply.window is None else reply.window.text
    output.say(f"  sliding window  {window}")
    usage = answered.usage
    output.say(
        f"  {answered.timings['total']:.0f} ms, {plural(usage.context_tokens, 'token')} attended, "
        f"{size(usage.fetched_bytes)} read",
        style="dim",
    )
    for warning in answered.warnings:
        output.warn(warning)


def draw(memory: VideoMemory, replies: Sequence[Reply], folder: Path) -> list[Path]:
    """A timeline of the first stream, and the evidence of the first right answer that no window held."""
    timeline, evidence = folder / "timeline.png", folder / "evidence.png"
    picture_timeline(memory, replies[0].asked.stream, timeline)
    found = (reply for reply in replies if _right(reply, reply.memory) and reply.seen and reply.seen.kind != "window")
    chosen = next(found, replies[0])
    title = f"{chosen.asked.stream}: {chosen.asked.text}: {chosen.memory.text}"
    picture_evidence(memory, chosen.asked.stream, title, chosen.memory.evidence, evidence)
    return [timeline, evidence]


def summary(reports: Sequence[IngestReport], replies: Sequence[Reply], pictures: Sequence[Path]) -> str:
    seen, kept = sum(report.tokens_seen for report in reports), sum(report.tokens_kept for report in reports)
    answer_ms = sum(reply.memory.timings["total"] for reply in replies) / len(replies)
    parts = [
        f"demo: {plural(len(reports), 'stream')}, {plural(sum(report.frames for report in reports), 'frame')}, "
        f"{100 - 100 * kept / max(seen, 1):.1f} % of tokens dropped, {plural(sum(r.blocks for r in reports), 'block')} "
        f"in {size(sum(report.num_bytes for report in reports))}",
        f"{plural(len(replies), 'question')} at {answer_ms:.0f} ms each",
    ]
    known = [reply for reply in replies if reply.asked.truth is not None]
    if known:
        right = sum(_right(reply, reply.memory) for reply in known)
        windowed = [reply for reply in known if reply.window is not None]
        by_window = sum(_right(reply, reply.window) for reply in windowed)
        parts.append(f"right: memory {right} of {len(known)}, sliding window {by_window} of {len(windowed)}")
    return "; ".join([*parts, f"pictures: {', '.join(map(str, pictures))}"])


def _right(reply: Reply, answered: AnswerResult | None) -> bool:
    return answered is not None and answered.text.strip() == reply.asked.truth


def as_json_of(reply: Reply) -> dict[str, object]:
    window = None if reply.window is None else reply.window.text
    asked = reply.asked
    own = {"stream": asked.stream, "question": asked.text, "truth": asked.truth, "shown": asked.shown}
    return {**to_json(own), "time_range": to_json(asked.time_range), "window_text": window, **to_json(reply.memory)}


def _meet(item: Evidence, span: TimeRange) -> bool:
    return item.start_s <= span.end_s and span.start_s <= item.end_s


def _span(span: TimeRange) -> str:
    return f"{clock(span.start_s)}-{clock(span.end_s)}"
