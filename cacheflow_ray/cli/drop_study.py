"""`cacheflow eval dropping`: what thinning a stream keeps, and what can still be answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.measuring import loaded, percent
from cacheflow_ray.cli.options import Json, ModelChoice, flattened
from cacheflow_ray.cli.output import Output, to_json
from cacheflow_ray.errors import InvalidConfig

if TYPE_CHECKING:
    from cacheflow_ray.eval.dropping import ClipRow, DriftRow, WorldRow

EPILOG = """Examples:

$ cacheflow eval dropping

$ cacheflow eval dropping --clips videos/ --questions 2000 --json

Likeness is the cosine between what is seen and what was last kept of the same place: below tau, the memory is wrong
about the room."""


def register(group: typer.Typer) -> None:
    group.command("dropping", help="Keep rate and accuracy over drop thresholds.", epilog=EPILOG)(flattened(dropping))


def dropping(
    model: ModelChoice,
    frames: Annotated[int, typer.Option("--frames", metavar="N", min=16, help="Length of the world's streams.")] = 256,
    questions: Annotated[
        int, typer.Option("--questions", metavar="N", min=1, help="At least so many per setting.")
    ] = 300,
    taus: Annotated[str, typer.Option("--tau", metavar="T,...", help="Thresholds.")] = "0.2,0.3,0.5,0.7,0.8,0.9,0.95",
    clips: Annotated[
        Path | None, typer.Option("--clips", metavar="DIR", help="Folder of videos whose keep rates are shown, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.eval import dropping as study

    output, chosen = Output(as_json=as_json), loaded(model)
    found = () if clips is None else tuple(study.videos_in(clips))
    plan = study.DropPlan(
        taus=_thresholds(taus), frames=frames, questions=questions, clips=found, recommended=chosen.recommended
    )
    world = list(study.world_rows(chosen, plan, output.note))
    tell_world(world, frames, output)
    drift = list(study.drift_rows(chosen, plan))
    tell_drift(drift, output)
    kept = list(study.clip_rows(chosen, plan, output.note)) if found else []
    tell_clips(kept, output)
    tables = {"world": world, "drift": drift, "clips": kept}
    output.result({"model": chosen.name, **{name: to_json(rows) for name, rows in tables.items()}})


def tell_world(rows: Sequence[WorldRow], frames: int, output: Output) -> None:
    from cacheflow_ray.eval.dropping import describe

    output.say(f"\nworld: {frames} frames, {rows[0].n} questions", style="bold")
    lines = [
        (
            describe(row.settings), percent(row.keep_rate), percent(row.ours),
            f"{percent(row.ours_ci[0])}-{percent(row.ours_ci[1])}", percent(row.oracle),
        )
        for row in rows
    ]  # fmt: skip
    output.table(_headings("kept %", "ours %", "95 %", "oracle %"), lines)


def tell_drift(rows: Sequence[DriftRow], output: Output) -> None:
    from cacheflow_ray.eval.dropping import describe

    output.say("\ndrift: a thing that creeps through a still room", style="bold")
    lines = [
        (describe(row.settings), percent(row.keep_rate), f"{row.mean_likeness:.3f}", f"{row.least_likeness:.3f}")
        for row in rows
    ]
    output.table(_headings("kept %", "likeness", "least"), lines)


def tell_clips(rows: Sequence[ClipRow], output: Output) -> None:
    from cacheflow_ray.eval.dropping import describe

    if not rows:
        return
    by_setting: dict[str, list[str]] = {}
    for row in rows:
        by_setting.setdefault(describe(row.settings), []).append(percent(row.keep_rate))
    output.say("\nclips: % of tokens kept", style="bold")
    names = dict.fromkeys(row.clip for row in rows)
    output.table(_headings(*names), [(setting, *cells) for setting, cells in by_setting.items()])


def _headings(*numbers: str) -> dict[str, str]:
    return {"dropping": "left", **dict.fromkeys(numbers, "right")}


def _thresholds(text: str) -> tuple[float, ...]:
    """Raises InvalidConfig."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidConfig(f"tau: {text!r} is not allowed; allowed: numbers with commas", key="tau") from None
