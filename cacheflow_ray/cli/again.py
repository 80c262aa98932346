"""Options of what a question may do about KV that was dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cacheflow_ray.config import Reencoding


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedKv:
    """How blocks without KV are encoded again from the stream's source; what is not given is `Reencoding`'s default."""

    reencode: Annotated[
        bool | None,
        typer.Option(
            "--reencode/--no-reencode",
            rich_help_panel="Dropped KV",
            help="Encode it again from the stream's source, or leave its blocks out. Default: again.",
        ),
    ] = None
    reencode_blocks: Annotated[
        int | None,
        typer.Option("--reencode-blocks", metavar="N", rich_help_panel="Dropped KV", help="At most. Default: 8."),
    ] = None
    reencode_seconds: Annotated[
        float | None,
        typer.Option("--reencode-seconds", metavar="S", rich_help_panel="Dropped KV", help="At most. Default: 30."),
    ] = None
    warm_up: Annotated[
        int | None,
        typer.Option(
            "--warm-up",
            metavar="M",
            rich_help_panel="Dropped KV",
            help="Blocks encoded before each, to come nearer to what it was. Default: 8, or 2 windows.",
        ),
    ] = None

    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="SOURCE",
            rich_help_panel="Dropped KV",
            help="Where the stream's source is by now. Default: where it was.",
        ),
    ] = None

    def options(self) -> Reencoding | None:
        """None when nothing was given. Raises InvalidConfig."""
        from cacheflow_ray.config import Reencoding

        given: dict[str, Any] = {
            "allowed": self.reencode,
            "max_blocks": self.reencode_blocks,
            "max_seconds": self.reencode_seconds,
            "warm_up_blocks": self.warm_up,
            "source": self.source,
        }
        given = {key: value for key, value in given.items() if value is not None}
        return Reencoding.model_validate(given) if given else None
