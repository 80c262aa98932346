"""`cacheflow scale`: more or fewer encoders and answerers."""

from __future__ import annotations

from typing import Annotated

import typer

from cacheflow_ray.cli.options import Json, flattened
from cacheflow_ray.cli.output import Output, plural
from cacheflow_ray.cli.remote import Remote
from cacheflow_ray.errors import UsageError

EPILOG = """Examples:

$ cacheflow scale --encoders 4

$ cacheflow scale --answerers 2 --server memory:50051 --json

Streams of an encoder that goes move on to the others; nothing that was acknowledged is lost. Without --server the
service on this machine is meant. Where there are keys, this takes one of the tenant "admin"."""


def register(app: typer.Typer) -> None:
    app.command("scale", help="Change how many encoders and answerers a service has.", epilog=EPILOG)(flattened(scale))


def scale(
    remote: Remote,
    encoders: Annotated[
        int | None, typer.Option("--encoders", metavar="N", min=1, max=1024, help="Encoders there shall be.")
    ] = None,
    answerers: Annotated[
        int | None, typer.Option("--answerers", metavar="N", min=1, max=1024, help="Answerers there shall be.")
    ] = None,
    as_json: Json = False,
) -> None:
    if encoders is None and answerers is None:
        raise UsageError("nothing to change: give --encoders, --answerers or both")
    output = Output(as_json=as_json)
    with remote.link().client() as client:
        encoders, answerers = client.scale(encoders=encoders, answerers=answerers)
    output.say(f"{plural(encoders, 'encoder')}, {plural(answerers, 'answerer')}")
    output.result({"encoders": encoders, "answerers": answerers})
