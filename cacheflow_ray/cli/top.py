"""`cacheflow top`: what a service does right now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cacheflow_ray.cli.looks import Look, Rows, actor_rows, look, stream_rows, summary
from cacheflow_ray.cli.options import Json, flattened
from cacheflow_ray.cli.output import Output
from cacheflow_ray.cli.remote import Remote
from cacheflow_ray.errors import ClusterUnavailable

if TYPE_CHECKING:
    from cacheflow_ray.service.client import Client

EPILOG = """Examples:

$ cacheflow top

$ cacheflow top --server memory:50051 --once

$ cacheflow top --once --json

Rates are those of one interval. Without --server the service on this machine is meant. Where there are keys, this takes
one of the tenant "admin". Ctrl-C ends it."""

#: Longer than this the picture does not stand still while the service is away.
_ANSWER_S = 3.0


def register(app: typer.Typer) -> None:
    app.command("top", help="Watch what a service does.", epilog=EPILOG)(flattened(top))


def top(
    remote: Remote,
    once: Annotated[bool, typer.Option("--once", help="Show it once; --json does that too.")] = False,
    interval: Annotated[float, typer.Option("--interval", metavar="S", min=0.1, help="Seconds between looks.")] = 1.0,
    as_json: Json = False,
) -> None:
    output = Output(as_json=as_json)
    with remote.link().client(timeout_s=_ANSWER_S) as client:
        seen = look(client.status(), time.monotonic(), None)
        if not (once or as_json):
            _watch(client, seen, interval)
            return
        time.sleep(interval)
        seen = look(client.status(), time.monotonic(), seen)
    output.say(summary(seen))
    for headings, rows in (stream_rows(seen), actor_rows(seen)):
        if rows:
            output.say()
            output.table(headings, rows)
    output.result({"streams": seen.streams, "actors": seen.actors})


def _watch(client: Client, seen: Look, interval: float) -> None:
    """Until Ctrl-C."""
    try:
        with Live(_picture(seen, ""), auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(interval)
                seen, trouble = _looked(client, seen)
                live.update(_picture(seen, trouble), refresh=True)
    except KeyboardInterrupt:
        pass


def _looked(client: Client, before: Look) -> tuple[Look, str]:
    """The next look, or the last one and why there is none."""
    try:
        return look(client.status(), time.monotonic(), before), ""
    except ClusterUnavailable as error:
        return before, f"{error}; this is {time.monotonic() - before.at_s:.0f} s old"


def _picture(seen: Look, trouble: str) -> Group:
    return Group(
        Text(summary(seen), style="bold"),
        Text(trouble, style="red"),
        _table(stream_rows(seen)),
        Text(),
        _table(actor_rows(seen)),
    )


def _table(rows: Rows) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading, side in rows[0].items():
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows[1]:
        table.add_row(*map(Text, row), style="red" if "DOWN" in row else None)
    return table
