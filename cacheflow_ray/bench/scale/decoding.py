"""Processor time of decoding one frame by codec and size, and bytes of a frame by how it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time

from cacheflow_ray.bench.synthetic import moving_frames
from cacheflow_ray.errors import UnsupportedMedia
from cacheflow_ray.media import Encoding, open_source, thumbnail, write_video

#: Codecs whose decoding is timed, and what writes them here.
CODECS = {
    "h264": Encoding(codec="libx264", options={"preset": "ultrafast", "crf": "28"}),
    "hevc": Encoding(codec="libx265", options={"preset": "ultrafast", "crf": "28", "x265-params": "log-level=none"}),
    "mpeg4": Encoding(codec="mpeg4", options={"q": "5"}),
}

_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """One codec at one size. `core_s`, `megapixels`, `video_bytes`, `jpeg_bytes`, `rgb_bytes`: of a frame."""

    codec: str
    height: int
    width: int
    core_s: float
    video_bytes: float
    jpeg_bytes: float
    rgb_bytes: float

    @property
    def megapixels(self) -> float:
        return self.height * self.width / 1e6


def measure_decoding(folder: Path, *, frames: int, sizes: Sequence[tuple[int, int]], rounds: int) -> list[Decoding]:
    """Every codec that can be written here, at every size; the median of so many rounds."""
    found = []
    for height, width in sizes:
        pictures = list(moving_frames(frames, height=height, width=width))
        jpeg = median(len(thumbnail(one, max_side=max(height, width), quality=_JPEG_QUALITY)) for one in pictures[::8])
        for codec, encoding in CODECS.items():
            path = folder / f"decoded-{codec}-{height}.mp4"
            try:
                write_video(path, pictures, fps=25, codec=encoding)
            except UnsupportedMedia:
                continue
            found.append(
                Decoding(
                    codec=codec, height=height, width=width, jpeg_bytes=jpeg, rgb_bytes=3.0 * height * width,
                    core_s=median(_core_s(path) for _ in range(rounds)) / frames,
                    video_bytes=path.stat().st_size / frames,
                )
            )  # fmt: skip
    return found


def _core_s(path: Path) -> float:
    started = process_time()
    with open_source(path, fps=None) as source:
        for _ in source:
            pass
    return process_time() - started
