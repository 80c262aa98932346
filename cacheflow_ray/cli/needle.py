"""`cacheflow eval needle`: questions about streams of the synthetic world, answered in a dozen ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli.inspect import write_picture
from cacheflow_ray.cli.measuring import loaded, numbers, percent
from cacheflow_ray.cli.options import Json, ModelChoice, flattened
from cacheflow_ray.cli.output import Output, to_json

if TYPE_CHECKING:
    from cacheflow_ray.config import Recommended
    from cacheflow_ray.eval.needle.rows import Row
    from cacheflow_ray.eval.needle.run import NeedlePlan

EPILOG = """Examples:

$ cacheflow eval needle --frames 64,256 --plot needle.png

$ cacheflow eval needle --checkpoint bundled:world-free --methods oracle,rekv,ours --top-k 4,8 --questions 2000 --json

What is asked about is coloured shapes and numbered cards: a model that was not trained on them is at chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is measured."""

    frames: Annotated[
        str, typer.Option("--frames", metavar="N,...", help="Lengths of streams, in frames at 1 per second.")
    ] = "64,256,1024"
    methods: Annotated[
        str | None, typer.Option("--methods", metavar="M,...", help="Ways of answering. Default: all of them.")
    ] = None
    top_k: Annotated[str, typer.Option("--top-k", metavar="K,...", help="Numbers of blocks to retrieve.")] = "8"
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="S,...", help="Seeds of streams. Default: as many as it takes.")
    ] = None
    questions: Annotated[
        int, typer.Option("--questions", metavar="N", min=1, help="At least so many per length, without --seeds.")
    ] = 300
    tau: Annotated[float | None, typer.Option("--tau", help="Drop threshold. Default: the model's.")] = None
    summary: Annotated[
        str | None, typer.Option("--summary", metavar="NAME", help="Key summary. Default: the model's.")
    ] = None
    window: Annotated[
        int | None, typer.Option("--window", metavar="W", help="Window, in blocks. Default: the model's.")
    ] = None
    kv_codec: Annotated[
        str | None, typer.Option("--kv-codec", metavar="C", help="How KV is kept: native, fp8, int8. Default: native.")
    ] = None

    def plan(self, recommended: Recommended) -> NeedlePlan:
        """Raises InvalidConfig, UsageError."""
        from cacheflow_ray.config import StreamSettings
        from cacheflow_ray.eval.needle.policies import METHODS
        from cacheflow_ray.eval.needle.run import NeedlePlan

        given: dict[str, Any] = {"tau": self.tau, "summary": self.summary, "window_blocks": self.window}
        given["kv_codec"] = self.kv_codec
        settings = StreamSettings.model_validate({key: value for key, value in given.items() if value is not None})
        names = tuple(METHODS) if self.methods is None else tuple(part.strip() for part in self.methods.split(","))
        return NeedlePlan(
            frames=numbers("frames", self.frames),
            methods=names,
            top_k=numbers("top-k", self.top_k),
            seeds=None if self.seeds is None else numbers("seeds", self.seeds, least=0),
            questions=self.questions,
            settings=recommended.stream_settings(settings),
            ask=recommended.ask_options(None),
        )


def register(group: typer.Typer) -> None:
    group.command("needle", help="Questions about a synthetic world, answered in a dozen ways.", epilog=EPILOG)(
        flattened(needle)
    )


def needle(
    measured: Measured,
    model: ModelChoice,
    picture: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Draw accuracy over length into this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.eval.needle.rows import make_rows
    from cacheflow_ray.eval.needle.run import run_needle

    output = Output(as_json=as_json)
    chosen = loaded(model)
    rows = make_rows(run_needle(chosen, measured.plan(chosen.recommended), note=output.note))
    tell(rows, output)
    if picture is not None:
        from cacheflow_ray.cli.needle_plot import plot

        write_picture(picture, plot(rows, f"{chosen.name}: questions about the synthetic world"))
    output.result({"model": chosen.name, "rows": [to_json(row) for row in rows], "picture": picture})


def tell(rows: Sequence[Row], output: Output) -> None:
    """One line per method, kinds of questions in percent."""
    kinds = sorted({kind for row in rows for kind in row.by_kind})
    columns = (
        "frames",
        "K",
        "method",
        "right %",
        "95 %",
        *kinds,
        "recall %",
        "tokens",
        "dropped %",
        "B/block",
        "ms",
        "n",
    )
    lines = [
        (
            str(row.frames), str(row.top_k), row.method, percent(row.accuracy),
            f"{percent(row.ci[0])}-{percent(row.ci[1])}", *(percent(row.by_kind.get(kind)) for kind in kinds),
            percent(row.recall), f"{row.tokens_attended:.0f}", percent(row.drop_rate),
            f"{row.index_bytes_per_block:.0f}", f"{row.ms:.1f}", str(row.n),
        )
        for row in rows
    ]  # fmt: skip
    output.table({name: "left" if name == "method" else "right" for name in columns}, lines)
