"""The process whose memory is watched: `python -m cacheflow_ray.bench.resident_process VIDEO FOLDER TAU`.

It ingests every frame of a video with the toy model and prints the peak of its anonymous memory (RssAnon: without the
mapped pages of the store's file) as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence

from cacheflow_ray.bench.resident import MODEL, STATUS
from cacheflow_ray.config import ModelOptions, StreamSettings
from cacheflow_ray.engine import VideoMemory

_SAMPLE_EVERY_S = 0.005


def anonymous_bytes() -> int:
    """This process's resident memory that is backed by no file."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))
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
