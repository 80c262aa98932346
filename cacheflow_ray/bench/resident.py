"""Whether memory grows with the stream: peak anonymous memory of a process that ingests ten times as many frames."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.synthetic import write_moving_video

MODEL = "random:tiny-llava-onevision"
FRAMES = (1_000, 10_000)
STATUS = Path("/proc/self/status")

_SIDE, _FPS = 112, 10.0

#: Drops about 80 % of the generated video's tokens, as the paper's threshold does of real ones.
_TAU = 0.84


def measure_resident(bench: Bench, frames: tuple[int, int] = FRAMES) -> Part:
    """`rss_growth_10x`: peak anonymous memory after ten times the frames / after the frames; always the toy model."""
    folder = bench.subfolder("resident")
    try:
        peaks = []
        for count in frames:
            bench.note(f"ingesting {count} frames with {MODEL.removeprefix('random:')} in a process of its own")
            video = folder / f"{count}.mp4"
            write_moving_video(video, count, height=_SIDE, width=_SIDE, fps=_FPS)
            peaks.append(_peak_of_process(video, folder / f"store-{count}"))
    finally:
        shutil.rmtree(folder)
    few, many = peaks
    return Part(
        ratios={"rss_growth_10x": many["peak_anon_bytes"] / few["peak_anon_bytes"]},
        details={"few": dict(few), "many": dict(many)},
    )


def is_supported() -> bool:
    """Whether the system tells anonymous memory from mapped."""
    return STATUS.exists() and "RssAnon:" in STATUS.read_text()


def _peak_of_process(video: Path, store: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "cacheflow_ray.bench.resident_process", str(video), str(store), str(_TAU)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    told: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return told
