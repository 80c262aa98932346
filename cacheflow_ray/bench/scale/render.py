"""A report as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from cacheflow_ray.bench.render import ratio_table
from cacheflow_ray.bench.scale.costs import Costs
from cacheflow_ray.bench.scale.model import Needs
from cacheflow_ray.bench.scale.run import ScaleReport, Scenario


def tables(report: ScaleReport) -> Iterator[Table]:
    """Unit costs, what the workloads take, then how near another workload was predicted."""
    yield _cost_table(list(report.costs.values()))
    for name, scenario in report.scenarios.items():
        yield _needs_table(name, scenario, report)
    predicted, measured = report.measured.validation.predicted, report.measured.validation.measured
    behind = {
        f"{name}_error": f"predicted {predicted[name]:.4g}, measured {value:.4g}" for name, value in measured.items()
    }
    yield ratio_table(report, behind)


def _cost_table(costs: Sequence[Costs]) -> Table:
    table = _table("unit costs", [own.name for own in costs])
    for what, values in (
        ("ms a sampled frame", [1e3 * own.frame_s for own in costs]),
        ("ms a megapixel of it", [1e3 * own.megapixel_s for own in costs]),
        ("ms a kept token", [1e3 * own.token_s for own in costs]),
        ("ms a megapixel decoded, H.264", [1e3 * own.decode_s["h264"] for own in costs]),
        ("kB a block, native", [own.block_bytes["native"] / 1e3 for own in costs]),
        ("kB a block, int8", [own.block_bytes["int8"] / 1e3 for own in costs]),
        ("kB a block, summary only", [own.summary_bytes / 1e3 for own in costs]),
        ("ms a question, before context", [1e3 * own.question.base_s for own in costs]),
        ("ms a thousand summaries searched", [1e6 * own.question.vector_s for own in costs]),
        ("ms a thousand context tokens", [1e6 * own.question.context_s for own in costs]),
        ("ms a token of the answer, before context", [1e3 * own.question.token_s for own in costs]),
    ):
        table.add_row(what, *[f"{value:.3g}" for value in values])
    return table


def _needs_table(name: str, scenario: Scenario, report: ScaleReport) -> Table:
    needs = list(scenario.needs.values())
    table = _table(name, [report.costs[own].name for own in scenario.needs])
    rows: list[tuple[str, list[str]]] = [
        ("encoders", [f"{own.encoders:,} ({own.bound_by})" for own in needs]),
        ("answerers", [f"{own.answers.answerers:,}" for own in needs]),
        ("cores that decode", [f"{own.decode_cores:,.0f}" for own in needs]),
        ("disk, TB", [f"{own.disk_tb:,.1f}" for own in needs]),
        ("written, read, MB/s", [f"{own.written_mb_per_s:,.0f}, {own.read_mb_per_s:,.0f}" for own in needs]),
        ("RAM of indexes, GB", [f"{own.ram_gb:,.0f}" for own in needs]),
        ("network in, inside, Gb/s", [f"{own.ingress_gbit_per_s:.1f}, {own.internal_gbit_per_s:.1f}" for own in needs]),
        ("answer alone, s", [f"{own.answers.service_s:.2f}" for own in needs]),
        ("answer p50, p95, s", [f"{own.answers.p50_s:.2f}, {own.answers.p95_s:.2f}" for own in needs]),
        *_money(needs),
    ]
    for what, values in rows:
        table.add_row(what, *values)
    table.caption = "encoding GPUs of the 7B model where so much of the peak is reached: " + ", ".join(
        f"{mfu}: {gpus}" for mfu, gpus in scenario.gpus_at_mfu.items()
    )
    return table


def _money(needs: Sequence[Needs]) -> Iterator[tuple[str, list[str]]]:
    if any(own.one_time for own in needs):
        yield "cost of an hour, indexed once", [f"{own.per_video_hour:.4f}" for own in needs]
        yield "cost of an hour, kept a month", [f"{own.per_video_hour_month or 0:.4f}" for own in needs]
    else:
        yield "cost of an hour of a stream", [f"{own.per_video_hour:.4f}" for own in needs]


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table
