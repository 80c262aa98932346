"""`cacheflow eval library`: one moment among hundreds of videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.measuring import loaded, numbers, percent
from cacheflow_ray.cli.options import Json, ModelChoice, flattened
from cacheflow_ray.cli.output import Output, to_json

if TYPE_CHECKING:
    from cacheflow_ray.config import Recommended
    from cacheflow_ray.eval.library.run import LibraryPlan, Row

EPILOG = """Examples:

$ cacheflow eval library

$ cacheflow eval library --videos 20 --frames 32 --json

Every question is about a thing that is to be seen in one video of the library alone, at one time; recall@K is the share
of questions whose moment is among the K found. A scan searches every stream by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is measured."""

    videos: Annotated[str, typer.Option("--videos", metavar="N,...", help="Sizes of libraries.")] = "100,300"
    frames: Annotated[int, typer.Option("--frames", metavar="N", min=8, help="Frames of each video, 1 a second.")] = 64
    top_k: Annotated[int, typer.Option("--top-k", metavar="K", min=1, help="Moments to search for.")] = 10

    def plan(self, recommended: Recommended) -> LibraryPlan:
        """Raises InvalidConfig."""
        from cacheflow_ray.eval.library.run import LibraryPlan

        return LibraryPlan(
            videos=numbers("videos", self.videos),
            frames=self.frames,
            top_k=self.top_k,
            settings=recommended.stream_settings(None),
            ask=recommended.ask_options(None),
        )


def register(group: typer.Typer) -> None:
    group.command("library", help="One moment among hundreds of videos of the world.", epilog=EPILOG)(
        flattened(library)
    )


def library(measured: Measured, model: ModelChoice, as_json: Json = False) -> None:
    from cacheflow_ray.eval.library.run import run_library

    output = Output(as_json=as_json)
    chosen = loaded(model)
    rows = list(run_library(chosen, measured.plan(chosen.recommended), note=output.note))
    tell(rows, output)
    output.result({"model": chosen.name, "rows": [to_json(row) for row in rows]})


def tell(rows: list[Row], output: Output) -> None:
    """One line per library; shares in percent, times in milliseconds."""
    columns = (
        "videos", "frames", "blocks", "n", "left out", "recall@1", f"recall@{rows[0].top_k}", "stream@1", "right",
        "search ms, p50/p95", "index ms", "scan ms", "same", "first s",
    )  # fmt: skip
    lines = [
        (
            str(row.videos), str(row.frames), str(row.blocks), str(row.n), str(row.left_out), percent(row.recall_1),
            percent(row.recall_k), percent(row.stream_1), percent(row.right),
            *(f"{own.p50:.1f}/{own.p95:.1f}" for own in (row.search, row.index, row.scan)),
            percent(row.same), f"{row.first_s:.2f}",
        )
        for row in rows
    ]  # fmt: skip
    output.table(dict.fromkeys(columns, "right"), lines)
