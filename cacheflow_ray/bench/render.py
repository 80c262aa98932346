"""A report as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rich.table import Table

from cacheflow_ray.bench.results import Report, Target
from memory_store.records import JsonValue


def tables(report: Report) -> Iterator[Table]:
    """Ratios with their targets, rooflines, then the speeds that are no ratio."""
    yield ratio_table(report)
    yield _rooflines(report)
    for name in ("encode", "questions"):
        if name in report.parts:
            yield _speeds(name, report)


class Ratios(Protocol):
    """What any of the reports has."""

    @property
    def title(self) -> str: ...
    @property
    def ratios(self) -> Mapping[str, float]: ...
    @property
    def targets(self) -> Mapping[str, Target]: ...


def ratio_table(report: Ratios, behind: Mapping[str, str] | None = None) -> Table:
    """Every ratio with its target; those missed in red. `behind`: by ratio, the numbers it was made of."""
    table = Table(title=report.title, title_justify="left")
    table.add_column("ratio")
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right")
    table.add_column("")
    if behind:
        table.add_column("of")
    for name, value in report.ratios.items():
        target = report.targets.get(name)
        missed = target is not None and not target.is_met(value)
        told = "" if target is None else "missed" if missed else "met"
        cells = [name, f"{value:.3f}", str(target or ""), told, *([behind.get(name, "")] if behind else [])]
        table.add_row(*cells, style="red" if missed else None)
    return table


def numbers_behind(details: Mapping[str, JsonValue]) -> str:
    """The plain numbers among them, as one line."""
    plain = {name: value for name, value in details.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {value:.4g}" for name, value in plain.items())


def _rooflines(report: Report) -> Table:
    table = Table(title="what had to happen, and what was reached", title_justify="left")
    for heading, justify in (("ratio", "left"), ("what", "left"), ("MB", "right"), ("GFLOP", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    for heading in ("ms", "GB/s", "GFLOP/s", "of roofline"):
        table.add_column(heading, justify="right")
    lines: Any = report.as_json()["roofline"]
    for name, line in lines.items():
        table.add_row(
            name, line["what"], f"{line['bytes'] / 1e6:.1f}", f"{line['flops'] / 1e9:.1f}",
            f"{line['seconds'] * 1e3:.1f}", f"{line['reached_gb_per_s']:.1f}", f"{line['reached_gflop_per_s']:.0f}",
            f"{100 * line['of_roofline']:.0f} %",
        )  # fmt: skip
    return table


def _speeds(name: str, report: Report) -> Table:
    table = Table(title=name, title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("published", justify="right")
    details: Mapping[str, Any] = report.parts[name].details
    rows = _encode_rows(details) if name == "encode" else _question_rows(details)
    published: Any = report.published or {}
    for row in (*rows, *_published_rows(name, published)):
        table.add_row(*row)
    return table


def _encode_rows(details: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for row in details["rows"]:
        yield f"frames/s at {100 * row['drop']:.0f} % drop", f"{row['frames_per_s']:.2f}", ""
    if "peak_gpu_memory_gb" in details:
        yield "peak GPU memory", f"{details['peak_gpu_memory_gb']:.1f} GB", ""


def _question_rows(details: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, seconds in details["question_s"].items():
        yield f"question on {name}, {details['blocks'][name]} blocks", f"{1e3 * seconds:.0f} ms", ""
    for place in ("page_cache", "disk"):
        value = details[f"first_token_ms_{place}"]
        what = f"first token, {details['first_token_blocks']} blocks from {place.replace('_', ' ')}"
        yield what, "-" if value is None else f"{value:.0f} ms", ""
    if "question_peak_gpu_memory_gb" in details:
        yield "peak GPU memory", f"{details['question_peak_gpu_memory_gb']:.1f} GB", ""


def _published_rows(name: str, published: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if name == "encode":
        for row in published.get("rekv_family_frames_per_s", ()):
            yield f"ReKV family, frames/s at {100 * row['drop']:.0f} % drop", "", f"{row['frames_per_s']:g}"
        return
    for method in ("cacheflow", "rekv"):
        if method in published:
            row = published[method]
            told = f"{row['latency_s']:g} s, {row['gpu_memory_gb']:g} GB"
            yield f"{method}: latency and GPU memory on RVS-Ego", "", told
