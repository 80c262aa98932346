"""What the measurements share: the model, a folder to work in, the generated video, and drop thresholds for it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from cacheflow_ray.bench.measure import count_flops
from cacheflow_ray.bench.sizes import Sizes
from cacheflow_ray.bench.synthetic import write_moving_video
from cacheflow_ray.core.dropping import KEEP_ALL, similarity
from cacheflow_ray.errors import UsageError
from cacheflow_ray.media import Frame, open_source
from cacheflow_ray.models import VideoModel
from cacheflow_ray.models.family import VISION_BATCH

#: Size and rate of the generated video, of which one frame per second is taken.
VIDEO_HEIGHT, VIDEO_WIDTH, VIDEO_FPS = 360, 640, 4.0

#: A threshold that keeps a single patch per frame.
KEEP_ONE = -1.0


@dataclass(slots=True)
class Bench:
    """One run's model, folder and progress notes.

    Args:
        model: loaded.
        sizes: how much to measure.
        folder: for videos and stores; what a part leaves in it, the run deletes.
        note: shows one line of progress.
    """

    model: VideoModel
    sizes: Sizes
    folder: Path
    note: Callable[[str], None]
    _frames: list[Frame] = field(default_factory=list)
    _similarities: torch.Tensor | None = None
    _vision_flops: float = 0.0

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    def subfolder(self, name: str) -> Path:
        """An empty folder; delete it when its part is done."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def need_space(self, num_bytes: float) -> None:
        """Raises UsageError when the folder's disk has not this much room and a tenth more."""
        free = shutil.disk_usage(self.folder).free
        if free < 1.1 * num_bytes:
            raise UsageError(
                f"this needs {num_bytes / 1e9:.1f} GB in {self.folder}, which has {free / 1e9:.1f} GB left: name "
                "another folder with --work, or leave the part out with --only"
            )

    def video(self, seconds: int) -> Path:
        """A generated H.264 file of so many seconds."""
        path = self.folder / f"moving-{seconds}.mp4"
        if not path.exists():
            self.note(f"generating {seconds} s of video")
            num_frames = round(seconds * VIDEO_FPS)
            write_moving_video(path, num_frames, height=VIDEO_HEIGHT, width=VIDEO_WIDTH, fps=VIDEO_FPS)
        return path

    def first_frames(self) -> list[Frame]:
        """The first sampled frames, as many as one vision batch takes."""
        if not self._frames:
            with open_source(self.video(VISION_BATCH), fps=1.0) as source:
                self._frames.extend(islice(source, VISION_BATCH))
        return self._frames

    def tau(self, drop: float, num_frames: int) -> float:
        """The threshold at which that share of the tokens of `num_frames` frames is dropped, the first kept whole."""
        if drop <= 0:
            return KEEP_ALL
        keep_later = ((1 - drop) * num_frames - 1) / (num_frames - 1)
        return KEEP_ONE if keep_later <= 0 else float(torch.quantile(self._seen(), keep_later))

    def vision_flops(self) -> float:
        """Operations of one vision batch (as large as it is padded to)."""
        self._seen()
        return self._vision_flops

    def num_vision_batches(self, num_frames: int, step: int) -> int:
        """Vision calls for a stream whose frames come `step` at a time."""
        full, rest = divmod(num_frames, step)
        return full * math.ceil(step / VISION_BATCH) + math.ceil(rest / VISION_BATCH)

    def _seen(self) -> torch.Tensor:
        """[n] similarities between patches of neighbouring frames, ascending; the model is warm afterwards."""
        if self._similarities is None:
            self.note("looking at the first frames to choose drop thresholds")
            images = [[frame.image] for frame in self.first_frames()]
            self._vision_flops, features = count_flops(lambda: self.model.vision.encode(images))
            stacked = torch.stack(features)
            self._similarities = similarity(stacked[1:], stacked[:-1]).flatten().float().cpu().sort().values
        return self._similarities
