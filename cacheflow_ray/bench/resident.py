"""Whether memory grows with the stream: peak anonymous memory of a process that ingests ten times as many frames.

Run as a program, `python -m cacheflow_ray.bench.resident VIDEO FOLDER TAU`, it is that process: it ingests the video
with the toy model and prints its peak. Anonymous memory (RssAnon) leaves out mapped pages of the store's file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.synthetic import write_moving_video

MODEL = "random:tiny-llava-onevision"
FRAMES = (1_000, 10_000)

_STATUS = Path("/proc/self/status")
_SIDE, _FPS = 112, 10.0
_SAMPLE_EVERY_S = 0.005
_TAU = 0.995


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
    return _STATUS.exists() and "RssAnon:" in _STATUS.read_text()


def _peak_of_process(video: Path, store: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "cacheflow_ray.bench.resident", str(video), str(store), str(_TAU)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    told: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def anonymous_bytes() -> int:
    """This process's resident memory that is backed by no file."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


class _Sampler(threading.Thread):
    """Watches this process's anonymous memory until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(_SAMPLE_EVERY_S):
            self.peak = max(self.peak, anonymous_bytes())

    def stop(self) -> int:
        """The peak, bytes."""
        self._stop_asked.set()
        self.join()
        return max(self.peak, anonymous_bytes())


def main(arguments: Sequence[str]) -> None:
    """Ingest every frame of a video and print the peak."""
    from cacheflow_ray.config import ModelOptions, StreamSettings
    from cacheflow_ray.engine import VideoMemory

    video, folder, tau = arguments
    options = ModelOptions(device="cpu", dtype="bfloat16")
    settings = StreamSettings(fps=None, tau=float(tau), window_blocks=16)
    with VideoMemory.open(folder, model=MODEL, options=options) as memory:
        sampler = _Sampler()
        sampler.start()
        report = memory.ingest(video, stream="moving", settings=settings)
        peak = sampler.stop()
    told = {"peak_anon_bytes": peak, "frames": report.frames, "blocks": report.blocks, "keep": report.keep_rate}
    print(json.dumps(told | {"seconds": report.elapsed_s, "stored_bytes": report.num_bytes}))


if __name__ == "__main__":
    main(sys.argv[1:])
