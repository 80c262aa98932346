"""`cacheflow health`: whether a service takes work, told by the exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from cacheflow_ray.cli.options import Json, flattened
from cacheflow_ray.cli.output import Output
from cacheflow_ray.cli.remote import Remote
from cacheflow_ray.errors import ServiceError, UsageError

EPILOG = """Examples:

$ cacheflow health

$ cacheflow health --server memory:50051 --service cacheflow.v1.IngestService --json

Exit code: 0 it takes work; 1 it does not (it is closing), or nobody answers. No key is needed. Without --server the
service on this machine is meant."""


def register(app: typer.Typer) -> None:
    app.command("health", help="Tell whether a service takes work.", epilog=EPILOG)(flattened(health))


def health(
    remote: Remote,
    service: Annotated[
        str, typer.Option("--service", metavar="NAME", help="One part of it, as cacheflow.v1.AnswerService.")
    ] = "",
    as_json: Json = False,
) -> None:
    output, link = Output(as_json=as_json), remote.link()
    with link.client() as client:
        try:
            serving = client.health(service)
        except ServiceError as error:
            if error.ids.get("code") != "NOT_FOUND":
                raise
            raise UsageError(
                f"{link.address} has no part {service!r}: give the full name of a service, or none"
            ) from None
    output.say(f"{link.address}: {'serving' if serving else 'not serving'}")
    output.result({"address": link.address, "service": service, "serving": serving})
    if not serving:
        raise typer.Exit(1)
