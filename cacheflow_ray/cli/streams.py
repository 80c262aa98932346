"""`cacheflow streams list | show | retain | delete`."""

from __future__ import annotations

import datetime
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli import retention
from cacheflow_ray.cli.memory import open_to_look, open_to_write
from cacheflow_ray.cli.options import Json, Place, flattened
from cacheflow_ray.cli.output import Output, clock, size
from cacheflow_ray.cli.remote import Remote
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.engine import StreamInfo

Name = Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    group.command("list", help="All streams of the store.", epilog="Example:\n\n$ cacheflow streams list --json")(
        flattened(list_streams)
    )
    group.command("show", help="One stream in detail.", epilog="Example:\n\n$ cacheflow streams show holiday")(
        flattened(show)
    )
    group.command(
        "delete", help="Forget a stream for good.", epilog="Example:\n\n$ cacheflow streams delete holiday --yes"
    )(flattened(delete))
    retention.register(group)
    app.add_typer(group, name="streams", help="List, show, limit or delete streams.")


def list_streams(place: Place, remote: Remote, as_json: Json = False) -> None:
    output = Output(as_json=as_json)
    with open_to_look(place, remote) as memory:
        infos = memory.streams()
    if infos:
        headings = {"stream": "left", "span": "right", "frames": "right", "kept": "right", "blocks": "right"}
        rows = [
            (
                info.stream,
                clock((info.end_s or 0) - (info.start_s or 0)),
                f"{info.frames:,}",
                f"{100 * info.keep_rate:.1f} %",
                f"{info.blocks:,}",
                size(info.num_bytes),
                "complete" if info.complete else "open",
                info.model,
            )
            for info in infos
        ]
        output.table({**headings, "size": "right", "state": "left", "model": "left"}, rows)
    else:
        output.say("no streams yet: cacheflow ingest FILE makes one")
    output.result({"streams": infos})


def show(stream: Name, place: Place, remote: Remote, as_json: Json = False) -> None:
    output = Output(as_json=as_json)
    with open_to_look(place, remote) as memory:
        info = memory.stream(stream)
    for name, value in details(info):
        output.say(f"{name:<9} {value}")
    output.result(info)


def details(info: StreamInfo) -> list[tuple[str, str]]:
    created = datetime.datetime.fromtimestamp(info.created_s).astimezone().isoformat(" ", "seconds")
    settings = ", ".join(f"{key}={value}" for key, value in dict(info.settings).items())
    warnings = [("warning", info.warning)] if info.warning else []
    return [
        *warnings,
        ("stream", info.stream),
        ("state", "complete" if info.complete else "open"),
        ("span", f"{clock(info.start_s)} to {clock(info.end_s)}"),
        ("frames", f"{info.frames:,}"),
        ("tokens", f"{info.tokens_kept:,} of {info.tokens_seen:,} kept ({100 * info.keep_rate:.1f} %)"),
        ("blocks", f"{info.blocks:,} and a tail of {info.tail_tokens} tokens"),
        ("size", size(info.num_bytes)),
        ("model", f"{info.model} ({info.fingerprint})"),
        ("settings", settings),
        ("labels", ", ".join(f"{name}={value}" for name, value in info.labels.items()) or "-"),
        ("created", created),
    ]


def delete(
    stream: Name,
    place: Place,
    remote: Remote,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    from memory_store.errors import CorruptRecord

    if not yes and (as_json or not sys.stdin.isatty()):
        raise UsageError(f"deleting {stream!r} cannot be undone: confirm with --yes", stream=stream)
    # A wrong name is told before the question, and no folder is made; what is damaged can be deleted all the same.
    with open_to_look(place, remote) as memory, suppress(CorruptRecord):
        memory.stream(stream)
    if not yes:
        typer.confirm(f"Delete {stream!r}? This cannot be undone.", abort=True, err=True)
    output = Output(as_json=as_json)
    with open_to_write(place, remote) as memory:
        memory.delete(stream)
    output.say(f"{stream}: deleted")
    output.result({"deleted": stream})
