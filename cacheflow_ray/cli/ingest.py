"""`cacheflow ingest`: watch videos and remember them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli.failures import Interrupted
from cacheflow_ray.cli.memory import open_memory
from cacheflow_ray.cli.options import Json, ModelChoice, Place, flattened, parse_labels
from cacheflow_ray.cli.output import Output, plural, size
from cacheflow_ray.cli.progress import ProgressView
from cacheflow_ray.cli.remote import Link, Remote
from cacheflow_ray.cli.retention import Limits
from cacheflow_ray.cli.sending import Sending
from cacheflow_ray.errors import InvalidConfig, UsageError

if TYPE_CHECKING:
    from cacheflow_ray.config import StoreOptions, StreamSettings
    from cacheflow_ray.engine import IngestJob, IngestReport, VideoMemory
    from cacheflow_ray.service.client import IngestOptions

EPILOG = """Examples:

$ cacheflow ingest holiday.mp4

$ cacheflow ingest cam1.mkv cam2.mkv --fps 0.5 --data /archive

$ cacheflow ingest frames/ --stream door --label room=3

$ cacheflow ingest archive/*.mp4 --summary-only-after 0

$ cacheflow ingest rtsp://camera/stream --stream gate --server memory:50051 --overload drop-oldest

After Ctrl-C or a crash, the same command again goes on where the stream stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Settings of a new stream; what is not given is the default, or what the stream was created with."""

    fps: Annotated[
        str | None, typer.Option("--fps", metavar="RATE", help="Frames taken per second, or 'all'. Default: 1.")
    ] = None
    tau: Annotated[
        float | None,
        typer.Option(
            "--tau",
            help="Keep a patch whose similarity is below this; above 1 keeps all. Default: 0.5, or the model's.",
        ),
    ] = None
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="KIND", help="Compare patches with: previous, last_kept."),
    ] = None
    adaptive: Annotated[bool, typer.Option("--adaptive", help="Choose tau per frame, near --tau.")] = False
    pixel_gate: Annotated[
        float | None,
        typer.Option(
            "--pixel-gate", metavar="X", help="Skip frames in which nothing moved by X (0 to 255). Default: off."
        ),
    ] = None
    summary: Annotated[
        str | None, typer.Option("--summary", metavar="NAME", help="Key summary of a block. Default: by block size.")
    ] = None
    block_size: Annotated[
        int | None, typer.Option("--block-size", metavar="B", help="Tokens per block. Default: the model's.")
    ] = None
    window: Annotated[
        int | None, typer.Option("--window", metavar="W", help="Blocks a token looks back on. Default: the model's.")
    ] = None

    kv_codec: Annotated[
        str | None,
        typer.Option(
            "--kv-codec", metavar="C", help="How KV is kept: native, or in a byte a number: fp8, int8. Default: native."
        ),
    ] = None

    def settings(self) -> StreamSettings | None:
        """None when nothing was given. Raises InvalidConfig."""
        from cacheflow_ray.config import StreamSettings

        given: dict[str, Any] = {
            "tau": self.tau,
            "reference": self.reference,
            "adaptive": self.adaptive or None,
            "pixel_gate": self.pixel_gate,
            "summary": self.summary,
            "block_size": self.block_size,
            "window_blocks": self.window,
            "kv_codec": self.kv_codec,
        }
        given = {key: value for key, value in given.items() if value is not None}
        if self.fps is not None:
            given["fps"] = _frame_rate(self.fps)
        return StreamSettings.model_validate(given) if given else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How the store is written."""

    shards: Annotated[
        int | None,
        typer.Option(
            "--shards", metavar="N", rich_help_panel="Store", help="LMDB environments of a new store. Default: 1."
        ),
    ] = None
    durability: Annotated[
        str | None,
        typer.Option(
            "--durability",
            metavar="D",
            rich_help_panel="Store",
            help="power_safe, process_safe (a power cut may undo the last commits) or relaxed (may damage the store, "
            "which is noticed). Default: power_safe.",
        ),
    ] = None

    def options(self) -> StoreOptions:
        """Raises InvalidConfig."""
        from cacheflow_ray.config import StoreOptions

        given = {"shards": self.shards, "durability": self.durability}
        return StoreOptions.model_validate({key: value for key, value in given.items() if value is not None})


def register(app: typer.Typer) -> None:
    app.command("ingest", help="Watch videos and remember them.", epilog=EPILOG)(flattened(ingest))


def ingest(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Video files, folders of images, or URLs.")],
    place: Place,
    model: ModelChoice,
    encoding: Encoding,
    writing: Writing,
    limits: Limits,
    remote: Remote,
    sending: Sending,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="NAME", help="Name of the stream. Default: the file's name.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="Attach a label.")] = None,
    as_json: Json = False,
) -> None:
    labels = parse_labels(label or [])
    settings = encoding.settings()
    names = stream_names(sources, stream)
    output = Output(as_json=as_json)
    link = remote.chosen(place, model)
    retention = None if limits == Limits() else limits.policy()
    if link is not None:
        if retention is not None:
            raise UsageError("limits of a service's stream are set by cacheflow streams retain: leave them out here")
        reports = send(link, sources, names, sending.options(settings, labels), writing)
    else:
        sending.refuse()
        with open_memory(place, model, store=writing.options()) as memory:
            jobs = make_jobs(sources, names, settings, labels)
            reports = watch(memory, [replace(job, retention=retention) for job in jobs])
    for report in reports:
        tell(report, output)
    output.result({"streams": reports})


def make_jobs(
    sources: Sequence[str], names: Sequence[str], settings: StreamSettings | None, labels: dict[str, str]
) -> list[IngestJob]:
    from cacheflow_ray.engine import IngestJob

    pairs = zip(sources, names, strict=True)
    return [IngestJob(source=source, stream=name, settings=settings, labels=labels) for source, name in pairs]


def watch(memory: VideoMemory, jobs: Sequence[IngestJob]) -> list[IngestReport]:
    """Ingest all at once, with progress. Raises Interrupted on Ctrl-C."""
    with _interruptible([job.stream for job in jobs]), ProgressView() as progress:
        return memory.ingest_many(jobs, progress=progress)


def send(
    link: Link, sources: Sequence[str], names: Sequence[str], options: IngestOptions, writing: Writing
) -> list[IngestReport]:
    """As `watch`, by a service. Raises UsageError: how a store is written is not a client's to say."""
    from cacheflow_ray.cli.sending import send_all

    if writing != Writing():
        raise UsageError("--shards and --durability are the service's own: leave them out with --server")
    with _interruptible(names):
        return send_all(link, sources, names, options)


@contextmanager
def _interruptible(names: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: what was seen is kept; the same command again goes on with {', '.join(names)}"
        ) from None


def stream_names(sources: Sequence[str], stream: str | None) -> list[str]:
    """One name for each source. Raises UsageError when two sources would share one."""
    from cacheflow_ray.engine.catalog import stream_name

    if stream is not None and len(sources) > 1:
        raise UsageError("--stream names one stream, so it takes one SOURCE: leave it out to name each after its file")
    names = [stream] if stream is not None else [stream_name(source) for source in sources]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UsageError(
            f"two sources would both be stream {doubled[0]!r}: ingest them one by one with --stream", stream=doubled[0]
        )
    return names


def tell(report: IngestReport, output: Output) -> None:
    """One line about what became of a source."""
    if report.already_complete:
        output.say(f"{report.stream}: complete already, {plural(report.blocks, 'block')}")
    else:
        new = report.frames - report.resumed_from_seq
        speed = f"{new / report.elapsed_s:.1f} frames/s, " if report.elapsed_s > 0 else ""
        resumed = f", resumed at frame {report.resumed_from_seq}" if report.resumed_from_seq else ""
        output.say(
            f"{report.stream}: {plural(report.frames, 'frame')}, {speed}{100 * report.keep_rate:.1f} % of tokens kept, "
            f"{plural(report.blocks, 'block')}, {size(report.num_bytes)}{resumed}"
        )
    if report.warning:
        output.warn(f"{report.stream}: {report.warning}")


def _frame_rate(text: str) -> float | None:
    """Raises InvalidConfig."""
    if text == "all":
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidConfig(
            f"fps: {text!r} is not allowed; allowed: above 0 and up to 1000, or all", key="fps"
        ) from None
