"""`cacheflow ingest --server`: videos sent to a service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli.progress import ProgressView
from cacheflow_ray.cli.remote import Link
from cacheflow_ray.errors import InvalidConfig, UsageError

if TYPE_CHECKING:
    from cacheflow_ray.actors.api import StreamView
    from cacheflow_ray.config import StreamSettings
    from cacheflow_ray.engine.reports import IngestReport
    from cacheflow_ray.service.client import AsyncClient, IngestOptions

#: --send -> `PayloadKind`
KINDS = {"jpeg": "image", "rgb": "rgb", "file": "container"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How sources are sent to a service; what is not given is `IngestOptions`' default."""

    send: Annotated[
        str | None,
        typer.Option(
            "--send",
            metavar="KIND",
            rich_help_panel="Server",
            help="Send frames as jpeg or (exact) rgb, or the file as it is: jpeg, rgb, file. Default: jpeg.",
        ),
    ] = None
    quality: Annotated[
        int | None,
        typer.Option("--quality", metavar="Q", rich_help_panel="Server", help="Of the JPEGs, 1 to 100. Default: 95."),
    ] = None
    overload: Annotated[
        str | None,
        typer.Option(
            "--overload",
            metavar="RULE",
            rich_help_panel="Server",
            help="With frames that come too fast: block, drop-oldest, lower-fps. Default: block.",
        ),
    ] = None
    patience: Annotated[
        float | None,
        typer.Option(
            "--patience", metavar="S", rich_help_panel="Server", help="Wait so long for a lost service. Default: 300."
        ),
    ] = None

    def options(self, settings: StreamSettings | None, labels: Mapping[str, str]) -> IngestOptions:
        """Raises InvalidConfig."""
        from cacheflow_ray.actors.api import PayloadKind
        from cacheflow_ray.engine.position import Overload
        from cacheflow_ray.service.client import IngestOptions

        overloads = {own.value.replace("_", "-"): own for own in Overload}
        for name, given, allowed in (("--send", self.send, KINDS), ("--overload", self.overload, overloads)):
            if given is not None and given not in allowed:
                raise InvalidConfig(f"{name}: {given!r} is not allowed; allowed: {', '.join(allowed)}", key=name)
        chosen: dict[str, Any] = {
            "payload": None if self.send is None else PayloadKind(KINDS[self.send]),
            "quality": self.quality,
            "overload": None if self.overload is None else overloads[self.overload],
            "patience_s": self.patience,
        }
        chosen = {name: value for name, value in chosen.items() if value is not None}
        return IngestOptions(settings=settings, labels=labels, **chosen)

    def refuse(self) -> None:
        """Raises UsageError: any of it is given, where nothing is sent."""
        if self != Sending():
            raise UsageError("--send, --quality, --overload and --patience are for a service: name it with --server")


def send_all(link: Link, sources: Sequence[str], names: Sequence[str], options: IngestOptions) -> list[IngestReport]:
    """Send all at once, with progress; Ctrl-C ends it as an exception. Raises: as `AsyncClient.ingest`."""

    async def send(progress: ProgressView) -> list[IngestReport]:
        async with link.aio() as client:
            await client.health()
            jobs = zip(sources, names, strict=True)
            return await asyncio.gather(*[_send(client, source, name, options, progress) for source, name in jobs])

    with ProgressView() as progress:
        return asyncio.run(send(progress))


async def _send(
    client: AsyncClient, source: str, name: str, options: IngestOptions, progress: ProgressView
) -> IngestReport:
    started_s = perf_counter()
    before = await _found(client, name)
    view = await client.ingest(name, source, options=options, progress=progress)
    return _report(before, view, perf_counter() - started_s)


async def _found(client: AsyncClient, name: str) -> StreamView | None:
    from memory_store.errors import StreamNotFound

    try:
        return await client.stream(name)
    except StreamNotFound:
        return None


def _report(before: StreamView | None, view: StreamView, elapsed_s: float) -> IngestReport:
    from cacheflow_ray.engine.reports import IngestReport

    info, shed = view.info, view.position.shed
    left_out = f"{shed} frames were left out: they came faster than they can be encoded" if shed else None
    return IngestReport(
        stream=info.stream,
        frames=info.frames,
        tokens_seen=info.tokens_seen,
        tokens_kept=info.tokens_kept,
        blocks=info.blocks,
        num_bytes=info.num_bytes,
        resumed_from_seq=before.position.next_seq if before else 0,
        already_complete=bool(before and before.info.complete),
        warning="; ".join(filter(None, (info.warning, left_out))) or None,
        elapsed_s=elapsed_s,
    )
