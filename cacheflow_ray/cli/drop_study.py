"""`cacheflow eval dropping`: what thinning a stream keeps, and what can still be answered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cacheflow_ray.cli.needle import percent
from cacheflow_ray.cli.options import Json, ModelChoice, flattened
from cacheflow_ray.cli.output import Output, to_json
from cacheflow_ray.errors import InvalidConfig

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
    from cacheflow_ray.config import Defaults
    from cacheflow_ray.eval import dropping as study

    output = Output(as_json=as_json)
    defaults = Defaults.from_environment()
    loaded = study.load(model.name(defaults), model.options(defaults))
    found = () if clips is None else tuple(study.videos_in(clips))
    plan = study.DropPlan(
        taus=_thresholds(taus), frames=frames, questions=questions, clips=found, recommended=loaded.recommended
    )

    world = list(study.world_rows(loaded, plan, output.note))
    output.say(f"\nworld: {frames} frames, {world[0].n} questions", style="bold")
    output.table(
        {"dropping": "left", "kept %": "right", "ours %": "right", "95 %": "right", "oracle %": "right"},
        [
            (
                study.describe(row.settings), percent(row.keep_rate), percent(row.ours),
                f"{percent(row.ours_ci[0])}-{percent(row.ours_ci[1])}", percent(row.oracle),
            )
            for row in world
        ],
    )  # fmt: skip
    drift = list(study.drift_rows(loaded, plan))
    output.say("\ndrift: a thing that creeps through a still room", style="bold")
    output.table(
        {"dropping": "left", "kept %": "right", "likeness": "right", "least": "right"},
        [
            (
                study.describe(row.settings), percent(row.keep_rate), f"{row.mean_likeness:.3f}",
                f"{row.least_likeness:.3f}",
            )
            for row in drift
        ],
    )  # fmt: skip
    kept = list(study.clip_rows(loaded, plan, output.note)) if found else []
    if kept:
        names = [path.name for path in found]
        by_setting: dict[str, dict[str, str]] = {}
        for row in kept:
            by_setting.setdefault(study.describe(row.settings), {})[row.clip] = percent(row.keep_rate)
        output.say("\nclips: % of tokens kept", style="bold")
        output.table(
            {"dropping": "left", **dict.fromkeys(names, "right")},
            [(setting, *(cells[name] for name in names)) for setting, cells in by_setting.items()],
        )
    tables = {"world": world, "drift": drift, "clips": kept}
    output.result({"model": loaded.name, **{name: to_json(rows) for name, rows in tables.items()}})


def _thresholds(text: str) -> tuple[float, ...]:
    """Raises InvalidConfig."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidConfig(f"tau: {text!r} is not allowed; allowed: numbers with commas", key="tau") from None
