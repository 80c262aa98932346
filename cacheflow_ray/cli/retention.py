"""`cacheflow streams retain`: how much of a stream is kept."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.memory import folder_of
from cacheflow_ray.cli.options import Json, Place, flattened, parse_duration, parse_range, parse_size
from cacheflow_ray.cli.output import Output, clock, size
from cacheflow_ray.cli.remote import Link, Remote
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from memory_store import Retention

EPILOG = """Examples:

$ cacheflow streams retain door --ttl 30d --max-bytes 50GB

$ cacheflow streams retain door --summary-only-after 7d --pin 1:00:00-1:05:00

$ cacheflow streams retain door

Without options: shows what holds. With any, they replace what held; --keep-all takes all limits away. The stream's
window and pinned ranges are never deleted. Of a block without KV only the summary is kept: it is found, and answered
from after it was encoded again from the stream's source, as far as that is still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is kept; None: no such limit."""

    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="AGE", help="Delete blocks so long after they were stored: 12h, 30d.")
    ] = None
    max_blocks: Annotated[
        int | None, typer.Option("--max-blocks", metavar="N", min=0, help="Keep the newest N blocks.")
    ] = None
    max_bytes: Annotated[
        str | None, typer.Option("--max-bytes", metavar="SIZE", help="Keep the newest that fit: 500MB, 20GiB.")
    ] = None
    summary_only_after: Annotated[
        str | None,
        typer.Option(
            "--summary-only-after", metavar="AGE", help="Drop the KV of blocks so old (0: at once): ask re-encodes it."
        ),
    ] = None
    pin: Annotated[
        list[str] | None, typer.Option("--pin", metavar="FROM-TO", help="Keep this range of stream time; repeatable.")
    ] = None

    def policy(self) -> Retention:
        """Raises InvalidConfig."""
        from memory_store import Retention

        return Retention(
            ttl_s=None if self.ttl is None else parse_duration(self.ttl, "--ttl"),
            max_blocks=self.max_blocks,
            max_bytes=None if self.max_bytes is None else parse_size(self.max_bytes, "--max-bytes"),
            summary_only_after_s=(
                None
                if self.summary_only_after is None
                else parse_duration(self.summary_only_after, "--summary-only-after")
            ),
            pinned=tuple(parse_range(text, "--pin") for text in self.pin or ()),
        )


def register(group: typer.Typer) -> None:
    group.command("retain", help="Limit what is kept of a stream.", epilog=EPILOG)(flattened(retain))


def retain(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream.")],
    place: Place,
    limits: Limits,
    remote: Remote,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Take all limits away.")] = False,
    as_json: Json = False,
) -> None:
    from memory_store import Retention

    output, wanted = Output(as_json=as_json), limits.policy()
    if keep_all and wanted != Retention():
        raise UsageError("--keep-all takes all limits away: leave the others out", stream=stream)
    new = wanted if keep_all or wanted != Retention() else None
    link = remote.chosen(place)
    holds = _retained(place, stream, new, output) if link is None else _retained_there(link, stream, new)
    output.say(f"{stream}: " + (", ".join(described(holds)) or "everything is kept"))
    output.result({"stream": stream, "retention": asdict(holds)})


def _retained(place: Place, stream: str, new: Retention | None, output: Output) -> Retention:
    """What holds, after `new` was put in force at once; None: nothing changes."""
    from memory_store import Retention, Store

    with Store.open(folder_of(place), read_only=new is None) as store:
        if new is not None:
            store.upkeep.set_retention(stream, new)
            kept = store.upkeep.housekeep()
            output.say(f"{stream}: {kept.deleted_blocks:,} blocks deleted, KV of {kept.aged_blocks:,} dropped")
        return store.upkeep.get_retention(stream) or Retention()


def _retained_there(link: Link, stream: str, new: Retention | None) -> Retention:
    """As `_retained`, by a service, which puts it in force in its own time."""
    from memory_store import Retention

    with link.client() as client:
        view = client.stream(stream) if new is None else client.update_stream(stream, retention=new)
        return view.retention or Retention()


def described(policy: Retention) -> Iterator[str]:
    """A phrase for each limit."""
    if policy.ttl_s is not None:
        yield f"deleted after {datetime.timedelta(seconds=policy.ttl_s)}"
    if policy.max_blocks is not None:
        yield f"at most {policy.max_blocks:,} blocks"
    if policy.max_bytes is not None:
        yield f"no more than {size(policy.max_bytes)}"
    if policy.summary_only_after_s is not None:
        yield f"summary only after {datetime.timedelta(seconds=policy.summary_only_after_s)}"
    if policy.pinned:
        yield "pinned " + ", ".join(f"{clock(own.start_s)} to {clock(own.end_s)}" for own in policy.pinned)
