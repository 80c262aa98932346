"""`cacheflow streams list | show | retain | delete`."""

from __future__ import annotations

import datetime
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.memory import folder_of, open_memory
from cacheflow_ray.cli.options import Json, Place, flattened, parse_range
from cacheflow_ray.cli.output import Output, clock, size
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.engine import StreamInfo

RETAIN_EPILOG = """Examples:

$ cacheflow streams retain door --ttl 30d --max-bytes 50GB

$ cacheflow streams retain door --summary-only-after 7d --pin 1:00:00-1:05:00

$ cacheflow streams retain door

Without options: shows what holds. With any, they replace what held; --keep-all takes all limits away. The stream's
window and pinned ranges are never deleted. Of a block without KV only the summary is kept: it is found, not answered
from."""

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
    group.command("retain", help="Limit what is kept of a stream.", epilog=RETAIN_EPILOG)(flattened(retain))
    app.add_typer(group, name="streams", help="List, show, limit or delete streams.")


def list_streams(place: Place, as_json: Json = False) -> None:
    output = Output(as_json=as_json)
    with open_memory(place, read_only=True) as memory:
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


def show(stream: Name, place: Place, as_json: Json = False) -> None:
    output = Output(as_json=as_json)
    with open_memory(place, read_only=True) as memory:
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


def retain(
    stream: Name,
    place: Place,
    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="AGE", help="Delete blocks so long after they were stored: 12h, 30d.")
    ] = None,
    max_blocks: Annotated[
        int | None, typer.Option("--max-blocks", metavar="N", min=0, help="Keep the newest N blocks.")
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option("--max-bytes", metavar="SIZE", help="Keep the newest that fit: 500MB, 20GiB.")
    ] = None,
    summary_only_after: Annotated[
        str | None, typer.Option("--summary-only-after", metavar="AGE", help="Drop the KV of blocks so old.")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option("--pin", metavar="FROM-TO", help="Keep this range of stream time; repeatable.")
    ] = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Take all limits away.")] = False,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.cli.options import parse_duration, parse_size
    from memory_store import Retention, Store

    output = Output(as_json=as_json)
    policy = Retention(
        ttl_s=None if ttl is None else parse_duration(ttl, "--ttl"),
        max_blocks=max_blocks,
        max_bytes=None if max_bytes is None else parse_size(max_bytes, "--max-bytes"),
        summary_only_after_s=(
            None if summary_only_after is None else parse_duration(summary_only_after, "--summary-only-after")
        ),
        pinned=tuple(parse_range(text, "--pin") for text in pin or ()),
    )
    change = keep_all or policy != Retention()
    if keep_all and policy != Retention():
        raise UsageError("--keep-all takes all limits away: leave the others out", stream=stream)
    with Store.open(folder_of(place), read_only=not change) as store:
        if change:
            store.upkeep.set_retention(stream, policy)
            kept = store.upkeep.housekeep()
            output.say(f"{stream}: {kept.deleted_blocks:,} blocks deleted, KV of {kept.aged_blocks:,} dropped")
        policy = store.upkeep.get_retention(stream) or Retention()
    limits = {
        "deleted after": policy.ttl_s is not None and datetime.timedelta(seconds=policy.ttl_s),
        "at most": policy.max_blocks is not None and f"{policy.max_blocks:,} blocks",
        "no more than": policy.max_bytes is not None and size(policy.max_bytes),
        "summary only after": policy.summary_only_after_s is not None
        and datetime.timedelta(seconds=policy.summary_only_after_s),
        "pinned": ", ".join(f"{clock(own.start_s)} to {clock(own.end_s)}" for own in policy.pinned),
    }
    told = [f"{name} {value}" for name, value in limits.items() if value is not False and value != ""]
    output.say(f"{stream}: " + (", ".join(told) or "everything is kept"))
    output.result({"stream": stream, "retention": asdict(policy)})


def delete(
    stream: Name,
    place: Place,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    if not yes and (as_json or not sys.stdin.isatty()):
        raise UsageError(f"deleting {stream!r} cannot be undone: confirm with --yes", stream=stream)
    with open_memory(place, read_only=True) as memory:  # a wrong name is told before the question, no folder is made
        memory.store.get_stream(stream)
    if not yes:
        typer.confirm(f"Delete {stream!r}? This cannot be undone.", abort=True, err=True)
    output = Output(as_json=as_json)
    with open_memory(place) as memory:
        memory.delete(stream)
    output.say(f"{stream}: deleted")
    output.result({"deleted": stream})
