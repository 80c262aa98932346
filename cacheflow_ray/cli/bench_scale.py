"""`cacheflow bench scale`: what a thousand cameras or a hundred thousand hours would take."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cacheflow_ray.cli.options import Json
from cacheflow_ray.cli.output import Output

if TYPE_CHECKING:
    from cacheflow_ray.bench.scale.run import Wanted
    from cacheflow_ray.bench.scale.workloads import Prices, Video

EPILOG = """Examples:

$ cacheflow bench scale

$ cacheflow bench scale --streams 200 --keep 0.1 --kv-days 30 --json

$ cacheflow bench scale --hours 5000 --deadline-days 7 --summary-only 0.5 --gpu-hour-price 1.9 --mfu 0.3

It ingests and asks on the CPU for about a minute and a half, fits costs of a frame, a block and a question to that,
predicts another workload it runs meanwhile, and plans: on this CPU, and by arithmetic on an H100."""

_WORK, _MONEY = "Workload", "Prices"


def _amount(name: str, help: str, panel: str = _WORK, least: float = 0.0) -> Any:
    return typer.Option(name, min=least, help=help, rich_help_panel=panel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Workloads. What is not given is as `bench.scale.workloads` has it."""

    streams: Annotated[int, _amount("--streams", "Live: cameras.", least=1)] = 1000
    kv_days: Annotated[float, _amount("--kv-days", "Live: days that KV is kept.")] = 7.0
    summary_days: Annotated[float, _amount("--summary-days", "Live: days that summaries are kept.")] = 30.0
    hours: Annotated[float, _amount("--hours", "Archive: hours of video.", least=1)] = 100_000.0
    deadline_days: Annotated[float, _amount("--deadline-days", "Archive: to index it in.", least=0.01)] = 30.0
    summary_only: Annotated[float, _amount("--summary-only", "Archive: share of which no KV is kept, 0 to 1.")] = 0.9
    fps: Annotated[float, _amount("--fps", "Frames sampled a second.", least=0.001)] = 1.0
    keep: Annotated[float, _amount("--keep", "Share of tokens kept.", least=0.0001)] = 0.2
    source_fps: Annotated[float, _amount("--source-fps", "Frames decoded a second.")] = 25.0
    megapixels: Annotated[float, _amount("--megapixels", "Of a source frame.")] = 2.07
    codec: Annotated[str, typer.Option("--codec", help="Of the video.", rich_help_panel=_WORK)] = "h264"
    mbit_per_s: Annotated[float, _amount("--mbit-per-s", "Of a stream of video.")] = 4.0
    kv_codec: Annotated[
        str, typer.Option("--kv-codec", help="Of KV on disk: native, fp8, int8.", rich_help_panel=_WORK)
    ] = "int8"
    library_codec: Annotated[
        str, typer.Option("--library-codec", help="Of the library's index: sq8, rabitq.", rich_help_panel=_WORK)
    ] = "sq8"
    live_questions: Annotated[float, _amount("--live-questions-per-s", "Of all cameras together.")] = 5.0
    archive_questions: Annotated[float, _amount("--archive-questions-per-s", "Of the archive.")] = 1.0
    top_k: Annotated[int, _amount("--top-k", "Blocks a question retrieves.")] = 8
    mfu: Annotated[float | None, _amount("--mfu", "Share of a GPU's peak that is reached.", least=0.001)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Prices, in any one currency."""

    gpu_hour: Annotated[float, _amount("--gpu-hour-price", "An H100, an hour.", _MONEY)] = 2.5
    core_hour: Annotated[float, _amount("--core-hour-price", "A core, an hour.", _MONEY)] = 0.04
    disk_tb_month: Annotated[float, _amount("--disk-tb-month-price", "A TB of disk, a month.", _MONEY)] = 40.0
    ram_gb_month: Annotated[float, _amount("--ram-gb-month-price", "A GB of memory, a month.", _MONEY)] = 3.0
    network_gb: Annotated[float, _amount("--network-gb-price", "A GB that comes in.", _MONEY)] = 0.0


def scale(
    planned: Planned,
    money: Money,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="That is measured here. Default: bundled:world.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="Folder on the disk to measure; what is made there is deleted."),
    ] = None,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.bench.scale.render import tables
    from cacheflow_ray.bench.scale.run import run_scale_bench
    from cacheflow_ray.cli.bench import FILE_WIDTH
    from cacheflow_ray.config import DEFAULT_MODEL

    output = Output(as_json=as_json)
    wanted = _wanted(planned, _prices(money))
    report = run_scale_bench(model=model or DEFAULT_MODEL, wanted=wanted, work=work, note=output.note)
    if not as_json:
        console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
        for table in tables(report):
            console.print(table)
    output.result(report.as_json())


def _wanted(planned: Planned, prices: Prices) -> Wanted:
    """Raises UsageError."""
    from cacheflow_ray.bench.scale.profiles import PUBLISHED_MFU
    from cacheflow_ray.bench.scale.run import Wanted
    from cacheflow_ray.bench.scale.workloads import Archive, Asking, Live

    def common(per_s: float) -> dict[str, Any]:
        return {
            "video": _video(planned),
            "prices": prices,
            "asking": Asking(per_s=per_s, top_k=planned.top_k),
            "kv_codec": planned.kv_codec,
            "library_codec": planned.library_codec,
        }

    return Wanted(
        live=Live(
            streams=planned.streams, kv_days=planned.kv_days, summary_days=planned.summary_days,
            **common(planned.live_questions),
        ),
        archive=Archive(
            hours=planned.hours, deadline_days=planned.deadline_days, summary_only=planned.summary_only,
            **common(planned.archive_questions),
        ),
        mfu=PUBLISHED_MFU if planned.mfu is None else planned.mfu,
    )  # fmt: skip


def _video(planned: Planned) -> Video:
    from cacheflow_ray.bench.scale.workloads import Video

    return Video(
        fps=planned.fps, keep=planned.keep, source_fps=planned.source_fps, megapixels=planned.megapixels,
        codec=planned.codec, mbit_per_s=planned.mbit_per_s,
    )  # fmt: skip


def _prices(money: Money) -> Prices:
    from cacheflow_ray.bench.scale.workloads import Prices

    return Prices(
        gpu_hour=money.gpu_hour, core_hour=money.core_hour, disk_tb_month=money.disk_tb_month,
        ram_gb_month=money.ram_gb_month, network_gb=money.network_gb,
    )  # fmt: skip
