"""`cacheflow eval index`: by which few vectors a block is found again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.measuring import loaded, numbers, percent
from cacheflow_ray.cli.options import Json, ModelChoice, flattened
from cacheflow_ray.cli.output import Output, to_json

if TYPE_CHECKING:
    from cacheflow_ray.config import Recommended
    from cacheflow_ray.eval.index.run import IndexPlan, Table

EPILOG = """Examples:

$ cacheflow eval index

$ cacheflow eval index --model bundled:world-free --frames 1024 --block-size 16 --streams 40 --json

Recall is the share of the events a question needs of which a block is among the K chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Studied:
    """What is studied."""

    frames: Annotated[str, typer.Option("--frames", metavar="N,...", help="Lengths of streams, in frames.")] = (
        "256,1024"
    )
    block_size: Annotated[str, typer.Option("--block-size", metavar="B,...", help="Tokens per block.")] = "16,196"
    streams: Annotated[int, typer.Option("--streams", metavar="N", min=1, help="Streams of each length.")] = 12
    summary: Annotated[
        str | None,
        typer.Option("--summary", metavar="NAME", help="Vectors for the questions after the first. Default: the best."),
    ] = None

    def plan(self, recommended: Recommended) -> IndexPlan:
        """Raises InvalidConfig."""
        from cacheflow_ray.eval.index.run import IndexPlan

        return IndexPlan(
            frames=numbers("frames", self.frames),
            streams=self.streams,
            block_sizes=numbers("block-size", self.block_size),
            settings=recommended.stream_settings(None),
            chosen=self.summary,
        )


def register(group: typer.Typer) -> None:
    group.command("index", help="Recall of every way of finding blocks again.", epilog=EPILOG)(flattened(index))


def index(studied: Studied, model: ModelChoice, as_json: Json = False) -> None:
    from cacheflow_ray.eval.index.run import run_index

    output = Output(as_json=as_json)
    chosen = loaded(model)
    tables = []
    for table in run_index(chosen, studied.plan(chosen.recommended), note=output.note):
        tell(table, output)
        tables.append(table)
    output.result({"model": chosen.name, "tables": [to_json(table) for table in tables]})


def tell(table: Table, output: Output) -> None:
    from cacheflow_ray.eval.index.run import describe

    first = table.rows[0]
    where = f"{table.frames} frames, blocks of {table.block_size}, {first.n} events sought"
    output.say(f"\n{table.question}: {where}", style="bold")
    top_ks = list(first.recall)
    headings = {"way": "left", "vectors": "right"}
    headings |= {f"recall@{top_k}": "right" for top_k in top_ks} | {f"blocks of {max(top_ks)}": "right"}
    rows = [
        (
            describe(row.way), str(row.vectors_per_block), *(percent(row.recall[top_k]) for top_k in top_ks),
            f"{row.mean_k[max(top_ks)]:.1f}",
        )
        for row in table.rows
    ]  # fmt: skip
    output.table(headings, rows)
