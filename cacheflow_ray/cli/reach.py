"""Which streams of a library a command means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.options import parse_labels
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.engine.scope import LibraryScope, Where


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

    def scope(self) -> LibraryScope:
        """Raises InvalidConfig."""
        from cacheflow_ray.engine.scope import LibraryScope

        return LibraryScope(streams=self.streams or "*", labels=parse_labels(self.label or []))

    def where(self, named: list[str]) -> Where:
        """The streams named, or else those of the library that are meant. Raises: UsageError: both. InvalidConfig."""
        if named and self.narrows:
            raise UsageError(f"--streams and --label choose among all, and {named[0]!r} is a stream: leave one out")
        return tuple(dict.fromkeys(named)) if named else self.scope()
