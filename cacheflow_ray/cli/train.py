"""`cacheflow train`: make the bundled checkpoints anew."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cacheflow_ray.cli.options import Json
from cacheflow_ray.cli.output import Output

EPILOG = """Examples:

$ cacheflow train --out world-training

$ cacheflow train --out quick-training --quick

The same command goes on where it was stopped. DIR/checkpoints/taught and DIR/checkpoints/free are folders for --model;
DIR/*/curve.jsonl are the curves."""


def register(app: typer.Typer) -> None:
    app.command("train", help="Train the bundled model of the synthetic world, from a seed.", epilog=EPILOG)(train)


def train(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of checkpoints and curves.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps of everything: what comes out answers nothing.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Processes that render. Default: one per core.")
    ] = None,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.training.recipe import FULL, QUICK
    from cacheflow_ray.training.run import run

    output, started = Output(as_json=as_json), time.perf_counter()
    made = run(QUICK if quick else FULL, out, note=output.note, workers=workers)
    seconds = time.perf_counter() - started
    for name, folder in made.items():
        output.say(f"{name}: {folder}")
    output.say(f"done in {seconds / 60:.1f} min")
    output.result({"checkpoints": {name: str(folder) for name, folder in made.items()}, "seconds": round(seconds, 1)})
