"""`cacheflow inspect`: a picture of what a stream holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.memory import open_memory
from cacheflow_ray.cli.options import Json, Place, flattened
from cacheflow_ray.cli.output import Output

if TYPE_CHECKING:
    from cacheflow_ray.cli.served import ServedMemory
    from cacheflow_ray.engine import Evidence, StreamMoment, VideoMemory

EPILOG = """Example:

$ cacheflow inspect holiday --out timeline.png"""


def register(app: typer.Typer) -> None:
    app.command("inspect", help="Draw what a stream holds: frames, kept tokens and blocks over time.", epilog=EPILOG)(
        flattened(inspect)
    )


def inspect(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream.")],
    place: Place,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PNG", help="Where the picture goes.")] = Path(
        "timeline.png"
    ),
    as_json: Json = False,
) -> None:
    output = Output(as_json=as_json)
    with open_memory(place, read_only=True) as memory:
        blocks = picture_timeline(memory, stream, out)
    output.say(f"{out}: {blocks} blocks of {stream!r}")
    output.result({"stream": stream, "picture": str(out), "blocks": blocks})


def picture_timeline(memory: VideoMemory, stream: str, out: Path) -> int:
    """Draw the stream's timeline into `out`; the number of blocks drawn.

    Raises:
        StreamNotFound, OSError.
        NothingToAnswer: the stream has no block yet.
    """
    from cacheflow_ray.cli.pictures import Layout, timeline

    info = memory.stream(stream)
    blocks = memory.blocks(stream)
    picture = timeline(blocks, layout=Layout(grid=info.grid, frames_per_unit=info.frames_per_unit), title=stream)
    write_picture(out, picture)
    return len(blocks)


def picture_evidence(
    memory: VideoMemory | ServedMemory, stream: str, title: str, evidence: Sequence[Evidence], out: Path
) -> None:
    """Draw one frame of each piece of evidence into `out`. Raises OSError."""
    from cacheflow_ray.cli.pictures import contact_sheet

    middles = [item.block_idxs[len(item.block_idxs) // 2] for item in evidence]
    thumbnails = memory.thumbnails(stream, middles)
    items = [_cell(jpeg, item) for jpeg, item in zip(thumbnails, evidence, strict=True)]
    write_picture(out, contact_sheet(items, title=title))


def picture_moments(memory: VideoMemory | ServedMemory, title: str, moments: Sequence[StreamMoment], out: Path) -> None:
    """Draw one frame of each moment into `out`, with its stream. Raises OSError."""
    from cacheflow_ray.cli.pictures import contact_sheet

    items = []
    for moment in moments:
        idxs = moment.evidence.block_idxs
        items.append(_cell(memory.thumbnails(moment.stream, [idxs[len(idxs) // 2]])[0], moment.evidence))
    write_picture(out, contact_sheet(items, title=title, names=[moment.stream for moment in moments]))


def _cell(jpeg: bytes | None, item: Evidence) -> tuple[bytes | None, float, float, float | None]:
    return jpeg, item.start_s, item.end_s, item.score if item.kind == "retrieved" else None


def write_picture(out: Path, png: bytes) -> None:
    if not out.parent.exists():
        out.parent.mkdir(parents=True)
    out.write_bytes(png)
