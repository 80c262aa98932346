"""Ingests of several streams in one process, timed stage by stage by the engine itself."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import process_time

from cacheflow_ray.bench.scale.counting import amounts
from cacheflow_ray.bench.scale.sizes import SOURCE_FPS, Ingests
from cacheflow_ray.bench.scale.waiting import Timed, timed
from cacheflow_ray.bench.synthetic import write_moving_video
from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine import IngestJob, IngestReport, VideoMemory
from cacheflow_ray.models import VideoModel

#: What each stage of an ingest is paid by. `rest` is what no stage holds: opening sources, making streams.
STAGES: dict[str, tuple[str, ...]] = {
    "vision": ("frames", "megapixels"),
    "drop_and_pack": ("frames", "blocks"),
    "language_model": ("calls", "blocks"),
    "summarise": ("calls", "blocks"),
    "store": ("commits", "blocks"),
    "rest": ("streams",),
}

#: What the whole of it is paid by, where processor time is counted, that of decoding left out.
CORE = ("frames", "megapixels", "blocks")

#: Bytes on disk: what a folder and a stream take however little is in them, and blocks.
DISK = ("once", "streams", "blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRun:
    """What one ingest did and took.

    Args:
        amounts: as `counting.amounts`.
        stages_s: STAGES, as parts of `own_s`.
        own_s: of all, by the clock, less what the thread waited for a core; clock_s: by the clock alone.
        core_s: processor time of all threads, decoding included.
        keep: share of tokens kept.
        disk_bytes: of the folder, as allocated.
        block_bytes: of one block as the store counts it: KV, tokens, summary, thumbnail.
    """

    amounts: dict[str, float]
    stages_s: dict[str, float]
    own_s: float
    clock_s: float
    core_s: float
    keep: float
    disk_bytes: int
    block_bytes: float


def video_of(folder: Path, ingests: Ingests) -> Path:
    """A generated H.264 file of the kind, written once."""
    path = folder / f"{ingests.width}x{ingests.height}-{ingests.frames}.mp4"
    if not path.exists():
        num_frames = round(ingests.frames * SOURCE_FPS)
        write_moving_video(path, num_frames, height=ingests.height, width=ingests.width, fps=SOURCE_FPS)
    return path


def run_ingest(
    model: VideoModel, videos: Path, folder: Path, ingests: Ingests, settings: StreamSettings | None = None
) -> IngestRun:
    """Ingest into a new store at `folder`, which is left there.

    Args:
        videos: where generated videos are.
        settings: beside `fps` and `tau`, as the model recommends.
    """
    shutil.rmtree(folder, ignore_errors=True)
    video = video_of(videos, ingests)
    own = (settings or StreamSettings()).model_dump(exclude_unset=True) | {"fps": 1.0, "tau": ingests.tau}
    jobs = [
        IngestJob(source=video, stream=stream_name(at), settings=StreamSettings.model_validate(own))
        for at in range(ingests.streams)
    ]
    with VideoMemory.open(folder, model=model) as memory:
        core = process_time()
        with timed() as time:
            reports = memory.ingest_many(jobs)
        core_s = process_time() - core
    return _run(ingests, reports, time, core_s, folder)


def stream_name(at: int) -> str:
    """Of the `at`th stream of an ingest."""
    return f"scale-{at}"


def _run(ingests: Ingests, reports: list[IngestReport], time: Timed, core_s: float, folder: Path) -> IngestRun:
    blocks = sum(report.blocks for report in reports)
    stages = dict(reports[0].stages_s)
    named = {name: stages.get(name, 0.0) for name in STAGES if name != "rest"}
    named["rest"] = max(0.0, time.clock_s - sum(stages.values()))
    return IngestRun(
        amounts=amounts(ingests, float(blocks)),
        stages_s={name: seconds * time.own_share for name, seconds in named.items()},
        own_s=time.own_s,
        clock_s=time.clock_s,
        core_s=core_s,
        keep=sum(report.keep_rate for report in reports) / len(reports),
        disk_bytes=sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()),
        block_bytes=sum(report.num_bytes for report in reports) / max(1, blocks),
    )
