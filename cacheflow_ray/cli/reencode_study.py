"""`cacheflow eval reencode`: how near re-encoded KV comes to what was dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli.measuring import loaded, numbers, percent
from cacheflow_ray.cli.options import Json, ModelChoice, flattened
from cacheflow_ray.cli.output import Output, to_json

if TYPE_CHECKING:
    from cacheflow_ray.eval.reencoding import ReencodeReport

EPILOG = """Examples:

$ cacheflow eval reencode

$ cacheflow eval reencode --warm-up 0,2,8 --frames 512 --json

Errors are relative: the length of the difference over the length of what was kept. A warm-up of (layers - 1) x window
gives back what there was."""


def register(group: typer.Typer) -> None:
    group.command("reencode", help="Nearness of re-encoded KV, by length of the warm-up.", epilog=EPILOG)(
        flattened(reencode)
    )


def reencode(
    model: ModelChoice,
    warm_up: Annotated[
        str | None,
        typer.Option("--warm-up", metavar="M,...", help="Blocks of warm-up. Default: 0,1,2,4, W, 2W and (L-1)W."),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", metavar="N", min=16, help="Length of the film.")] = 1024,
    blocks: Annotated[int, typer.Option("--blocks", metavar="N", min=1, help="Blocks compared.")] = 32,
    questions: Annotated[int, typer.Option("--questions", metavar="N", min=1, help="Of each kind, at most.")] = 8,
    tau: Annotated[float | None, typer.Option("--tau", help="Drop threshold. Default: the model's.")] = None,
    window: Annotated[
        int | None, typer.Option("--window", metavar="W", help="Window, in blocks. Default: the model's.")
    ] = None,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.bench.measure import describe_machine
    from cacheflow_ray.config import StreamSettings
    from cacheflow_ray.eval.reencoding import ReencodePlan, measure, usual_warm_ups

    output, chosen = Output(as_json=as_json), loaded(model)
    given: dict[str, Any] = {"tau": tau, "window_blocks": window}
    settings = StreamSettings.model_validate({key: value for key, value in given.items() if value is not None})
    settings, ask = chosen.recommended.stream_settings(settings), chosen.recommended.ask_options(None)
    lengths = usual_warm_ups(chosen, settings) if warm_up is None else numbers("warm-up", warm_up, least=0)
    plan = ReencodePlan(
        warm_ups=lengths, frames=frames, blocks=blocks, per_kind=questions, settings=settings, ask=ask
    )  # fmt: skip
    report = measure(chosen, plan, output.note)
    machine = describe_machine(chosen.device)
    tell(report, output)
    output.say(f"{machine['cpu']}, {machine['cores']} cores", style="dim")
    output.result({**to_json(report), "machine": machine})


def tell(report: ReencodeReport, output: Output) -> None:
    """A line per warm-up, and what stands beside them."""
    output.say(
        f"\n{report.model}: {report.num_blocks} blocks of {report.block_size}, window of {report.window_blocks}; "
        f"{report.compared} blocks, {report.questions} questions",
        style="bold",
    )
    rows = [
        (
            str(row.warm_up), str(row.exact), layers(row.key_error), layers(row.value_error), f"{row.worst_error:.2g}",
            f"{row.logits:.2g}", percent(row.same_word), percent(row.right), f"{row.seconds * 1e3:.0f}",
        )
        for row in report.rows
    ]  # fmt: skip
    headings = {
        "warm-up": "right", "exact": "right", "keys, by layer": "left", "values, by layer": "left", "worst": "right",
        "logits": "right", "same word %": "right", "right %": "right", "ms/block": "right",
    }  # fmt: skip
    output.table(headings, rows)
    output.say(
        f"right from the KV as it was kept: {percent(report.kept_right)} %, without the retrieved blocks: "
        f"{percent(report.left_out_right)} %"
    )


def layers(errors: tuple[float, ...]) -> str:
    """'0 0.12 0.31'"""
    return " ".join(f"{error:.2g}" for error in errors)
