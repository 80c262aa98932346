"""An archive indexed through Ray beside the same files ingested in one process, decoding included."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter

import torch

from cacheflow_ray.actors import topology
from cacheflow_ray.actors.archiving import IndexCall, run_index
from cacheflow_ray.actors.topology import ClusterOptions
from cacheflow_ray.archive.finding import find
from cacheflow_ray.archive.indexing import Wanted
from cacheflow_ray.archive.report import IndexReport
from cacheflow_ray.bench.measure import describe_machine
from cacheflow_ray.bench.results import Part, RatioReport, Target
from cacheflow_ray.bench.service.engine import computing_with
from cacheflow_ray.bench.service.lab import MODEL_OPTIONS, TINY
from cacheflow_ray.bench.service.pushing import stream_frames
from cacheflow_ray.config import INDEXERS_ON_CPUS, EncoderOptions, IndexOptions
from cacheflow_ray.engine import IngestJob, VideoMemory
from cacheflow_ray.media import write_video
from cacheflow_ray.models import VideoModel, load_model
from memory_store.records import JsonValue

TARGETS = {"index_over_engine": Target(sign=">=", bound=1.0)}

#: Frames of the files for each that is taken, as in a video that is sampled once a second.
_FRAMES_PER_S = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSizes:
    """How much is measured: so many files of so many seconds, so often."""

    files: int = 64
    seconds: int = 60
    rounds: int = 3


def run_index_bench(
    *, sizes: IndexSizes | None = None, work: Path | None = None, note: Callable[[str], None] = lambda text: None
) -> RatioReport:
    """Measure on the CPU, at toy dimensions, with all cores for either.

    Args:
        work: a folder to make files and stores in; None takes the system's.
        note: shows one line of progress.
    """
    sizes, started, threads = sizes or IndexSizes(), perf_counter(), torch.get_num_threads()
    folder = Path(mkdtemp(prefix="cacheflow-bench-", dir=work))
    try:
        note(f"writing {sizes.files} videos of {sizes.seconds} s")
        files = _written(folder / "library", sizes)
        part = _measured(folder, files, sizes, threads, note)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    machine = describe_machine(torch.device("cpu")) | {"torch_threads": threads}
    return RatioReport(
        kind="archive", model=TINY, machine=machine, parts={"index": part}, targets=TARGETS,
        seconds=perf_counter() - started,
    )  # fmt: skip


def _measured(
    folder: Path, files: Sequence[Path], sizes: IndexSizes, threads: int, note: Callable[[str], None]
) -> Part:
    model, at_once = load_model(TINY, MODEL_OPTIONS), IndexOptions().files_at_once
    times: dict[str, list[float]] = {"one_by_one": [], "together": [], "index": []}
    reports: list[IndexReport] = []
    for at in range(sizes.rounds):
        note(f"round {at + 1} of {sizes.rounds}")
        with computing_with(threads):
            times["one_by_one"].append(_ingested(model, folder / f"one-{at}", files, 1))
            times["together"].append(_ingested(model, folder / f"together-{at}", files, at_once))
        reports.append(_indexed(folder / f"index-{at}", files, threads))
        times["index"].append(reports[-1].busy_s)
    seconds = {name: statistics.median(each) for name, each in times.items()}
    frames = sizes.files * sizes.seconds
    details: dict[str, JsonValue] = {f"{name}_frames_per_s": frames / own for name, own in seconds.items()}
    details |= {
        "decode_utilisation": statistics.median(own.decode_utilisation for own in reports),
        "encode_utilisation": statistics.median(own.encode_utilisation for own in reports),
        "files": sizes.files,
        "frames": frames,
    }
    engine_s = min(seconds["one_by_one"], seconds["together"])
    return Part(ratios={"index_over_engine": engine_s / seconds["index"]}, details=details)


def _ingested(model: VideoModel, data: Path, files: Sequence[Path], at_once: int) -> float:
    """Seconds of ingesting all in this process, so many at a time."""
    with VideoMemory.open(data, model=model) as memory:
        began = perf_counter()
        for start in range(0, len(files), at_once):
            some = files[start : start + at_once]
            memory.ingest_many([IngestJob(source=path, stream=path.stem) for path in some])
        seconds = perf_counter() - began
    shutil.rmtree(data)
    return seconds


def _indexed(data: Path, files: Sequence[Path], threads: int) -> IndexReport:
    """As `cacheflow index` does it on a machine without a GPU."""
    indexers = min(INDEXERS_ON_CPUS, threads)
    encoder = EncoderOptions(torch_threads=threads // indexers)
    options = ClusterOptions(data=data, model=TINY, model_options=MODEL_OPTIONS, encoder=encoder)
    wanted = Wanted(options=IndexOptions(indexers=indexers))
    call = IndexCall(sources=[], found=find([str(path) for path in files]), wanted=wanted)
    with topology.stores(options) as setup:
        report = run_index(setup, call, lambda _: None)
    shutil.rmtree(data)
    return report


def _written(folder: Path, sizes: IndexSizes) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"video-{number:03}.mp4" for number in range(sizes.files)]
    for number, path in enumerate(paths):
        frames = stream_frames(number, sizes.seconds)
        write_video(path, [frame.image for frame in frames for _ in range(_FRAMES_PER_S)], fps=_FRAMES_PER_S)
    return paths
