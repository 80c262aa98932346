"""`cacheflow ask` and `cacheflow search`: what was in a stream, and when."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli.inspect import picture_evidence
from cacheflow_ray.cli.memory import open_to_ask, open_to_search
from cacheflow_ray.cli.options import Json, ModelChoice, Place, Span, flattened
from cacheflow_ray.cli.output import Output, clock, plural, size, to_json
from cacheflow_ray.cli.remote import Remote

if TYPE_CHECKING:
    from cacheflow_ray.cli.served import ServedMemory
    from cacheflow_ray.config import AskOptions
    from cacheflow_ray.engine import AnswerResult, Evidence, VideoMemory
    from cacheflow_ray.types import TimeRange

ASK_EPILOG = """Examples:

$ cacheflow ask holiday "What colour is the boat?"

$ cacheflow ask cam1 "Who came in?" --from 8:00:00 --to 9:30:00

$ cacheflow ask cam1 "And who left?" --session 4f1c --evidence evidence.png

$ cacheflow ask gate "Who rang?" --server memory:50051"""

SEARCH_EPILOG = """Examples:

$ cacheflow search holiday "a red boat"

$ cacheflow search cam1 "delivery van" --from 10:00 --top-k 3 --json"""


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

    def options(self, time_range: TimeRange | None) -> AskOptions:
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
        }
        return AskOptions.model_validate({key: value for key, value in given.items() if value is not None})


def register(app: typer.Typer) -> None:
    app.command("ask", help="Ask about a stream; the answer comes with its evidence.", epilog=ASK_EPILOG)(
        flattened(ask)
    )
    app.command("search", help="Find moments of a stream by text; nothing is generated.", epilog=SEARCH_EPILOG)(
        flattened(search)
    )


def ask(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know.")],
    place: Place,
    model: ModelChoice,
    span: Span,
    asking: Asking,
    remote: Remote,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="PNG", help="Write a picture of the evidence here.")
    ] = None,
    as_json: Json = False,
) -> None:
    options = asking.options(span.time_range())
    output = Output(as_json=as_json)
    with open_to_ask(place, model, remote, stream, output, thumbnails=evidence is not None) as memory:
        result = answer(memory, stream, question, options, output)
        if evidence is not None:
            picture_evidence(memory, stream, f"{stream}: {question}", result.evidence, evidence)
    tell(result, output)
    picture = None if evidence is None else str(evidence)
    output.result({"stream": stream, "question": question, **to_json(result), "picture": picture})


def search(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.")],
    place: Place,
    model: ModelChoice,
    span: Span,
    remote: Remote,
    top_k: Annotated[int, typer.Option("--top-k", metavar="K", min=1, help="Moments to show.")] = 8,
    as_json: Json = False,
) -> None:
    time_range = span.time_range()
    output = Output(as_json=as_json)
    with open_to_search(place, model, remote, stream) as memory:
        found = memory.search(stream, text, top_k=top_k, time_range=time_range)
    if found:
        evidence_table(found, output)
    else:
        output.say("nothing found")
    output.result({"stream": stream, "text": text, "evidence": found})


def answer(
    memory: VideoMemory | ServedMemory, stream: str, question: str, options: AskOptions, output: Output
) -> AnswerResult:
    """Ask, showing the answer as it is made."""
    # Closed also when Ctrl-C or a reader that has gone cuts it short: a model must not go on at the interpreter's end.
    with closing(memory.ask(stream, question, options=options)) as reply:
        for piece in reply:
            output.piece(piece)
        output.say()
        return reply.result


def tell(result: AnswerResult, output: Output) -> None:
    """Evidence, cost and warnings of an answer whose text is on the screen already."""
    if result.evidence:
        output.say()
        evidence_table(result.evidence, output)
    usage = result.usage
    output.say(
        f"\n{plural(usage.context_tokens, 'token')} of context: {plural(usage.retrieved_blocks, 'retrieved block')}, "
        f"{plural(usage.window_blocks, 'window block')}, {plural(usage.tail_tokens, 'tail token')}; "
        f"{size(usage.fetched_bytes)} read, {result.timings['total']:.0f} ms",
        style="dim",
    )
    if result.session_id is not None:
        output.say(f"to follow up: --session {result.session_id}", style="dim")
    for warning in result.warnings:
        output.warn(warning)


def evidence_table(evidence: Sequence[Evidence], output: Output) -> None:
    rows = [
        (
            clock(item.start_s, tenths=True),
            clock(item.end_s, tenths=True),
            item.kind,
            "-" if item.score is None else f"{item.score:.3f}",
            block_list(item.block_idxs),
        )
        for item in evidence
    ]
    output.table({"from": "right", "to": "right", "evidence": "left", "score": "right", "blocks": "left"}, rows)


def block_list(block_idxs: Sequence[int]) -> str:
    """'3' or '3-7': the blocks of one piece of evidence are neighbours."""
    first, last = block_idxs[0], block_idxs[-1]
    return str(first) if first == last else f"{first}-{last}"
