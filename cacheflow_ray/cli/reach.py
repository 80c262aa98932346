"""Which streams of a library a command means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.options import parse_labels
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.engine.scope import Where
    from cacheflow_ray.types import TimeRange


Named = Annotated[list[str] | None, typer.Argument(metavar="STREAM", help="Names of streams, or none.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Streams by their names and labels."""

    streams: Annotated[
        str | None,
        typer.Option("--streams", metavar="GLOB", help="Of all streams, those named like this: 'cam-*'."),
    ] = None
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="K=V", help="Of all streams, those with this label.")
    ] = None

    @property
    def narrows(self) -> bool:
        """Whether anything was said."""
        return self.streams is not None or bool(self.label)

    def where(self, named: list[str], recorded: TimeRange | None) -> Where:
        """The streams named, or else what of the library is meant. Raises: UsageError: both. InvalidConfig.

        Args:
            recorded: when, by the clock.
        """
        from cacheflow_ray.engine.scope import LibraryScope

        if named and self.narrows:
            raise UsageError(f"--streams and --label choose among all, and {named[0]!r} is a stream: leave one out")
        if named and recorded is not None:
            raise UsageError(f"dates are looked for in all streams: use --streams {named[0]!r} to name it")
        if named:
            return tuple(dict.fromkeys(named))
        return LibraryScope(streams=self.streams or "*", labels=parse_labels(self.label or []), recorded=recorded)
