"""`cacheflow search`: moments by text, of a stream or of the whole library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.inspect import picture_moments
from cacheflow_ray.cli.memory import open_to_search
from cacheflow_ray.cli.options import Json, ModelChoice, Place, Span, flattened
from cacheflow_ray.cli.output import Output, to_json
from cacheflow_ray.cli.reach import Named, Reach
from cacheflow_ray.cli.remote import Remote
from cacheflow_ray.cli.telling import moment_table

if TYPE_CHECKING:
    from cacheflow_ray.cli.served import ServedMemory
    from cacheflow_ray.engine import LibraryFound, VideoMemory
    from cacheflow_ray.engine.scope import Where
    from cacheflow_ray.types import TimeRange

EPILOG = """Examples:

$ cacheflow search holiday "a red boat"

$ cacheflow search cam1 "delivery van" --from 10:00 --top-k 3 --json

$ cacheflow search "a red boat" --sheet boats.png

$ cacheflow search "delivery van" --label site=north --streams 'cam-*' --top 10 --from 8:00:00

$ cacheflow search "delivery van" --from 2026-04-11T08:00 --to 2026-04-11T09:00

Without a STREAM all are searched, each from --from to --to of its own time. Dates (in UTC, or with an offset) are for
streams whose label `start` tells when they began."""

#: Moments where nothing is said: of one stream, and of many.
_OF_ONE, _OF_MANY = 8, 20


def register(app: typer.Typer) -> None:
    app.command("search", help="Find moments by text, in all streams or in those named.", epilog=EPILOG)(
        flattened(search)
    )


def search(
    *,
    named: Named = None,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for.")],
    place: Place,
    model: ModelChoice,
    span: Span,
    reach: Reach,
    remote: Remote,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", "--top", metavar="K", min=1, help="Moments to show. Default: 8 of a stream, else 20."),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="PNG", help="Write a picture of the moments here.")
    ] = None,
    as_json: Json = False,
) -> None:
    where, time_range = reach.where(named or [], span.recorded()), span.time_range()
    output = Output(as_json=as_json)
    with open_to_search(place, model, remote, where, thumbnails=sheet is not None) as memory:
        found = _found(memory, where, text, top_k, time_range)
        if sheet is not None:
            picture_moments(memory, text, found.moments, sheet)
    moment_table(found.moments, output, named=len(named or []) != 1)
    for warning in found.warnings:
        output.warn(warning)
    output.result(_as_json(named or [], text, found) | {"picture": sheet})


def _found(
    memory: VideoMemory | ServedMemory, where: Where, text: str, top_k: int | None, time_range: TimeRange | None
) -> LibraryFound:
    from cacheflow_ray.engine import LibraryFound, StreamMoment
    from cacheflow_ray.engine.scope import parted

    named, _ = parted(where)
    if len(named) != 1:
        return memory.search_library(text, where=where, top_k=top_k or _OF_MANY, time_range=time_range)
    (stream,) = named
    evidence = memory.search(stream, text, top_k=top_k or _OF_ONE, time_range=time_range)
    return LibraryFound(moments=tuple(StreamMoment(stream=stream, evidence=own) for own in evidence))


def _as_json(named: Sequence[str], text: str, found: LibraryFound) -> dict[str, object]:
    """Of one stream, its evidence; of many, moments with their streams."""
    if len(named) == 1:
        return {"stream": named[0], "text": text, "evidence": [own.evidence for own in found.moments]}
    moments = [{"stream": own.stream, **to_json(own.evidence)} for own in found.moments]
    return {"text": text, "moments": moments, "warnings": found.warnings}
