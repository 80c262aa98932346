"""`cacheflow bench`: how fast it is here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cacheflow_ray.cli.bench_scale import EPILOG as SCALE_EPILOG
from cacheflow_ray.cli.bench_scale import scale
from cacheflow_ray.cli.options import Json, flattened
from cacheflow_ray.cli.output import Output

EPILOG = """Examples:

$ cacheflow bench engine

$ cacheflow bench engine --preset llava-ov-0.5b --json

$ cacheflow bench engine --preset llava-ov-7b --device cuda --only encode --only questions"""

STORE_EPILOG = """Examples:

$ cacheflow bench store

$ cacheflow bench store --only commit --only fetch --work /mnt/disk --json"""

INDEX_EPILOG = """Examples:

$ cacheflow bench index

$ cacheflow bench index --files 100 --seconds 30 --json

It writes videos, ingests them in this process, one by one and several together, and indexes them with a Ray of its own,
in turn, on the CPU."""

SERVICE_EPILOG = """Examples:

$ cacheflow bench service

$ cacheflow bench service --only ingest --only ask --model random:tiny-llava-onevision --json

It starts a Ray and a service of its own, measures them on the CPU in about three minutes, and stops them."""

#: Columns of a table that no terminal sets a width for.
FILE_WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is measured, and on what."""

    preset: Annotated[
        str, typer.Option("--preset", metavar="P", help="tiny, llava-ov-0.5b or llava-ov-7b, with random weights.")
    ] = "tiny"
    device: Annotated[str, typer.Option("--device", metavar="DEV", help="auto, cpu, cuda or cuda:N.")] = "auto"
    dtype: Annotated[str, typer.Option("--dtype", metavar="TYPE", help="auto, float32, bfloat16 or float16.")] = (
        "bfloat16"
    )
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PART", help="fetch, ragged, ingest, encode, questions, resident; repeatable."),
    ] = None
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="Folder on the disk to measure; what is made there is deleted."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMeasured:
    """What is measured of the service, and on what."""

    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PART", help="ingest, busy, gateway, batch, fairness, ask; repeatable."),
    ] = None
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Of ingest and busy; the others measure at toy dimensions."),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", help="Each model computes with; default: as the service would."),
    ] = None
    full: Annotated[bool, typer.Option("--full", help="Longer, for numbers that vary less.")] = False
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="Folder on the disk to measure; default: a temporary one."),
    ] = None


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Measure how fast it is here.", no_args_is_help=True)
    group.command("engine", help="The engine, in one process, as ratios within one run.", epilog=EPILOG)(
        flattened(engine)
    )
    group.command("store", help="The memory store beside the disk and the memory, in one run.", epilog=STORE_EPILOG)(
        store
    )
    group.command("service", help="The service beside the engine and bare gRPC, in one run.", epilog=SERVICE_EPILOG)(
        flattened(service)
    )
    group.command("index", help="An archive through Ray beside ingest in one process.", epilog=INDEX_EPILOG)(index)
    group.command("scale", help="What a thousand cameras would take, from costs measured here.", epilog=SCALE_EPILOG)(
        flattened(scale)
    )
    app.add_typer(group, name="bench")


def engine(measured: Measured, as_json: Json = False) -> None:
    from cacheflow_ray.bench.engine import run_engine_bench
    from cacheflow_ray.bench.render import tables
    from cacheflow_ray.config import ModelOptions

    output = Output(as_json=as_json)
    options = ModelOptions.model_validate({"device": measured.device, "dtype": measured.dtype})
    report = run_engine_bench(
        measured.preset, options=options, only=measured.only or (), work=measured.work, note=output.note
    )
    if not as_json:
        console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
        for table in tables(report):
            console.print(table)
    output.result(report.as_json())


def store(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PART", help="commit, fetch, search, churn, library; repeatable."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="Folder on the disk to measure; default: a temporary one."),
    ] = None,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.bench.render import ratio_table
    from cacheflow_ray.bench.store import run_store_bench

    output = Output(as_json=as_json)
    report = run_store_bench(only=only or (), work=work, note=output.note)
    if not as_json:
        Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(ratio_table(report))
    output.result(report.as_json())


def index(
    files: Annotated[int, typer.Option("--files", metavar="N", min=1, help="Videos.")] = 64,
    seconds: Annotated[int, typer.Option("--seconds", metavar="S", min=1, help="Of each.")] = 60,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="Of which the medians are taken.")] = 3,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="Folder on the disk to measure; default: a temporary one."),
    ] = None,
    as_json: Json = False,
) -> None:
    from cacheflow_ray.bench.indexing import IndexSizes, run_index_bench
    from cacheflow_ray.bench.render import numbers_behind, ratio_table

    output = Output(as_json=as_json)
    sizes = IndexSizes(files=files, seconds=seconds, rounds=rounds)
    report = run_index_bench(sizes=sizes, work=work, note=output.note)
    if not as_json:
        behind = {name: numbers_behind(details) for name, details in report.details.items()}
        Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(ratio_table(report, behind))
    output.result(report.as_json())


def service(measured: ServiceMeasured, as_json: Json = False) -> None:
    from cacheflow_ray.bench.render import numbers_behind, ratio_table
    from cacheflow_ray.bench.service.run import run_service_bench
    from cacheflow_ray.bench.service.sizes import FULL, QUICK
    from cacheflow_ray.config import DEFAULT_MODEL

    output = Output(as_json=as_json)
    report = run_service_bench(
        model=measured.model or DEFAULT_MODEL,
        only=measured.only or (),
        work=measured.work,
        threads=measured.threads,
        sizes=FULL if measured.full else QUICK,
        note=output.note,
    )
    if not as_json:
        behind = {name: numbers_behind(details) for name, details in report.details.items()}
        Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(ratio_table(report, behind))
    output.result(report.as_json())
