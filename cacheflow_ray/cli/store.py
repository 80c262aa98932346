"""`cacheflow store verify | stats | snapshot | restore`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cacheflow_ray.cli.memory import folder_of
from cacheflow_ray.cli.options import Json, Place, flattened
from cacheflow_ray.cli.output import Output, err_console, size

VERIFY_EPILOG = """Examples:

$ cacheflow store verify --data cameras

$ cacheflow store verify --data cameras --repair --json

Exit code: 0 nothing is wrong, or all of it was mended; 1 something is wrong.

A block whose KV fails is quarantined: its summary stays, answers leave it out and say so. What cannot be mended (a
stream's record, state or retention) is named with its mend."""


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    group.command("verify", help="Read everything and check it; --repair mends what can be.", epilog=VERIFY_EPILOG)(
        flattened(verify)
    )
    group.command("stats", help="Totals of the store.", epilog="Example:\n\n$ cacheflow store stats --json")(
        flattened(stats)
    )
    group.command(
        "snapshot",
        help="Copy the store, whole and compact, while others write it.",
        epilog="Example:\n\n$ cacheflow store snapshot backups/monday --data cameras",
    )(flattened(snapshot))
    group.command(
        "restore",
        help="Make a store of a snapshot.",
        epilog="Example:\n\n$ cacheflow store restore backups/monday --data cameras",
    )(flattened(restore))
    app.add_typer(group, name="store", help="Verify, measure, copy or restore a store.")


def verify(
    place: Place,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended; nothing else may write.")] = False,
    as_json: Json = False,
) -> None:
    from memory_store import verify_apart

    output, folder = Output(as_json=as_json), folder_of(place)
    columns = (TextColumn("verify"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[read]}"))
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=err_console(),
        transient=True,
        disable=not err_console().is_terminal,
    ) as bars:
        task = bars.add_task("verify", read="")
        report = verify_apart(
            folder,
            repair=repair,
            progress=lambda done, total, read: bars.update(task, completed=done, total=total, read=size(read)),
        )
    for finding in report.findings:
        where = "" if finding.block_idx is None else f"block {finding.block_idx}: "
        stream = f"{finding.stream_id}: " if finding.stream_id else ""
        output.say(
            f"{stream}{where}{finding.what}: {finding.problem}" + (f" [{finding.mended}]" * bool(finding.mended))
        )
    verdict = "whole" if not report.findings else "mended" if report.whole else "damaged"
    output.say(
        f"{verdict}: {report.streams:,} streams, {report.blocks:,} blocks, {size(report.num_bytes)} read, "
        f"{len(report.findings):,} findings"
    )
    output.result(
        {
            "verdict": verdict,
            "streams": report.streams,
            "blocks": report.blocks,
            "num_bytes": report.num_bytes,
            "findings": [asdict(finding) for finding in report.findings],
        }
    )
    if not report.whole:
        raise typer.Exit(1)


def stats(place: Place, as_json: Json = False) -> None:
    from memory_store import Store

    output = Output(as_json=as_json)
    with Store.open(folder_of(place), read_only=True) as store:
        totals = store.upkeep.stats()
    output.say(f"streams  {totals.streams:,} in {totals.shards:,} shard(s)")
    output.say(f"blocks   {totals.blocks:,}, of which {totals.absent:,} without KV; {totals.deleted:,} deleted")
    output.say(f"tokens   {totals.tokens:,}")
    output.say(f"size     {size(totals.live_bytes)} kept, {size(totals.file_bytes)} on disk")
    output.result(totals)


def snapshot(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    place: Place,
    as_json: Json = False,
) -> None:
    from memory_store import Store

    output = Output(as_json=as_json)
    with (
        err_console().status("copying"),
        Store.open(folder_of(place), read_only=True) as store,
    ):
        store.upkeep.snapshot(target)
    _told(output, target, "snapshot")


def restore(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A snapshot.")], place: Place, as_json: Json = False
) -> None:
    import memory_store

    output, folder = Output(as_json=as_json), folder_of(place)
    with err_console().status("copying"):
        memory_store.restore(source, folder)
    _told(output, folder, "restored")


def _told(output: Output, folder: Path, what: str) -> None:
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    output.say(f"{what}: {folder} ({size(num_bytes)})")
    output.result({what: str(folder), "num_bytes": num_bytes})
