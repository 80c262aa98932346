"""`cacheflow ask`: what was in a stream, or in any of many, and when."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli.again import DroppedKv
from cacheflow_ray.cli.inspect import picture_evidence
from cacheflow_ray.cli.memory import open_to_ask
from cacheflow_ray.cli.options import Json, ModelChoice, Place, Span, flattened
from cacheflow_ray.cli.output import Output, plural, size, to_json
from cacheflow_ray.cli.reach import Named, Reach
from cacheflow_ray.cli.remote import Remote
from cacheflow_ray.cli.telling import evidence_table
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.cli.served import ServedMemory
    from cacheflow_ray.config import AskOptions, Reencoding
    from cacheflow_ray.engine import AnswerResult, VideoMemory
    from cacheflow_ray.engine.scope import Where
    from cacheflow_ray.types import TimeRange

EPILOG = """Examples:

$ cacheflow ask holiday "What colour is the boat?"

$ cacheflow ask cam1 "Who came in?" --from 8:00:00 --to 9:30:00

$ cacheflow ask cam1 "And who left?" --session 4f1c --evidence evidence.png

$ cacheflow ask gate "Who rang?" --server memory:50051

$ cacheflow ask --library "Where was the red boat?" --label site=north"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a question is answered; what is not given is `AskOptions`' default."""

    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help="Blocks to retrieve; 0: window alone. Default: 8.")
    ] = None
    candidates: Annotated[
        int | None, typer.Option("--candidates", metavar="M", help="Blocks each ranking brings. Default: 4 * K.")
    ] = None
    merge: Annotated[
        str | None,
        typer.Option("--merge", metavar="RULE", help="consensus, rrf, interleave, last or first. Default: interleave."),
    ] = None
    ranking: Annotated[
        str | None, typer.Option("--ranking", metavar="RULE", help="Rank by mean or votes of the heads. Default: mean.")
    ] = None
    stop_ratio: Annotated[
        float | None,
        typer.Option("--stop-ratio", metavar="R", help="Leave out blocks below R x the best score. Default: 0."),
    ] = None
    window: Annotated[
        int | None, typer.Option("--window", metavar="W", help="Most recent blocks to attend to. Default: stream's.")
    ] = None
    session: Annotated[str | None, typer.Option("--session", metavar="ID", help="Go on with this conversation.")] = None
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", metavar="N", help="Longest answer. Default: 64.")
    ] = None

    def options(self, time_range: TimeRange | None, reencode: Reencoding | None = None) -> AskOptions:
        """Raises InvalidConfig."""
        from cacheflow_ray.config import AskOptions

        given: dict[str, Any] = {
            "top_k": self.top_k,
            "candidates": self.candidates,
            "merge": self.merge,
            "ranking": self.ranking,
            "stop_ratio": self.stop_ratio,
            "window_blocks": self.window,
            "session_id": self.session,
            "max_new_tokens": self.max_new_tokens,
            "time_range": time_range,
            "reencode": reencode,
        }
        return AskOptions.model_validate({key: value for key, value in given.items() if value is not None})


def register(app: typer.Typer) -> None:
    app.command("ask", help="Ask about a stream or all of them; answers come with evidence.", epilog=EPILOG)(
        flattened(ask)
    )


def ask(
    *,
    named: Named = None,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know.")],
    place: Place,
    model: ModelChoice,
    span: Span,
    reach: Reach,
    asking: Asking,
    dropped: DroppedKv,
    remote: Remote,
    library: Annotated[
        bool, typer.Option("--library", help="Ask all streams: the one with the best moment answers.")
    ] = False,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="PNG", help="Write a picture of the evidence here.")
    ] = None,
    as_json: Json = False,
) -> None:
    where = _where(named or [], reach, library, span.recorded())
    options = asking.options(span.time_range(), dropped.options())
    output = Output(as_json=as_json)
    with open_to_ask(place, model, remote, where, output, thumbnails=evidence is not None) as memory:
        stream, result = answer(memory, where, question, options, output)
        if evidence is not None:
            picture_evidence(memory, stream, f"{stream}: {question}", result.evidence, evidence)
    tell(result, output, stream=None if len(named or []) == 1 else stream)
    picture = None if evidence is None else str(evidence)
    output.result({"stream": stream, "question": question, **to_json(result), "picture": picture})


def _where(named: list[str], reach: Reach, library: bool, recorded: TimeRange | None) -> Where:
    """Raises: UsageError: no stream is named though the library is not meant, or both are."""
    if library and named:
        raise UsageError(f"--library asks all streams, and {named[0]!r} names one: leave one out")
    if not (named or library or reach.narrows):
        raise UsageError("whom to ask is missing: name a stream before the question, or ask all of them with --library")
    return reach.where(named, recorded)


def answer(
    memory: VideoMemory | ServedMemory, where: Where, question: str, options: AskOptions, output: Output
) -> tuple[str, AnswerResult]:
    """Ask, showing the answer as it is made; also tells the stream that answered."""
    from cacheflow_ray.engine.scope import parted

    named, _ = parted(where)
    if len(named) == 1:
        asked = memory.ask(named[0], question, options=options)
    else:
        asked = memory.ask_library(question, where=where, options=options)
    # Closed also when Ctrl-C or a reader that has gone cuts it short: a model must not go on at the interpreter's end.
    with closing(asked) as reply:
        for piece in reply:
            output.piece(piece)
        output.say()
        result = reply.result
        return reply.stream, result


def tell(result: AnswerResult, output: Output, *, stream: str | None = None) -> None:
    """Evidence, cost and warnings of an answer whose text is on the screen already. `stream`: None: known already."""
    if result.evidence:
        output.say()
        if stream is not None:
            output.say(f"from {stream}:")
        evidence_table(result.evidence, output)
    usage = result.usage
    output.say(
        f"\n{plural(usage.context_tokens, 'token')} of context: {plural(usage.retrieved_blocks, 'retrieved block')}, "
        f"{plural(usage.window_blocks, 'window block')}, {plural(usage.tail_tokens, 'tail token')}; "
        f"{size(usage.fetched_bytes)} read, {result.timings['total']:.0f} ms",
        style="dim",
    )
    if result.session_id is not None:
        whom = "" if stream is None else f"cacheflow ask {stream} ... "
        output.say(f"to follow up: {whom}--session {result.session_id}", style="dim")
    for warning in result.warnings:
        output.warn(warning)
