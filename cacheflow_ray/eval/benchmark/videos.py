"""A benchmark's video, watched from one moment to the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cacheflow_ray.errors import UnsupportedMedia
from cacheflow_ray.media import Frame, FrameSource, open_source, prefetch
from cacheflow_ray.media.sample import Grid

#: Decoded films (RVS-Movie) are arrays of one frame per second.
ARRAY_SUFFIX = ".npy"

#: A frame this little after a moment belongs to it: containers round their times. Seconds.
_TOLERANCE_S = 1e-3


class WatchedVideo:
    """The sampled frames of one video, in order; a context manager that closes it.

    Args:
        path: a video, a folder of images, or an array [T, H, W, 3] uint8 of one frame per second.
        fps: frames taken per second of video.
        keep: how many of the latest frames `recent` holds.

    Raises:
        MediaError: nothing can be decoded.
    """

    def __init__(self, path: Path, *, fps: float, keep: int) -> None:
        self._stack = ExitStack()
        self._recent: deque[Frame] = deque(maxlen=keep)
        self._held: Frame | None = None
        self._num_given = 0
        self._source: FrameSource | None = None
        self._frames = self._open(path, fps)

    @property
    def warning(self) -> str | None:
        """What was wrong with it so far, in one line; None where nothing was."""
        return None if self._source is None else self._source.report.warning

    @property
    def recent(self) -> list[Frame]:
        """The latest frames given, oldest first."""
        return list(self._recent)

    def until(self, time_s: float) -> Iterator[Frame]:
        """The frames up to a moment that have not been given yet.

        The very first frame is given whatever its time: a question at 0 s is about what is seen then.
        """
        while (frame := self._next()) is not None:
            if frame.timestamp_s > time_s + _TOLERANCE_S and self._num_given:
                self._held = frame
                return
            self._num_given += 1
            self._recent.append(frame)
            yield frame

    def __enter__(self) -> WatchedVideo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _next(self) -> Frame | None:
        frame, self._held = self._held, None
        return frame if frame is not None else next(self._frames, None)

    def _open(self, path: Path, fps: float) -> Iterator[Frame]:
        if path.suffix == ARRAY_SUFFIX:
            return array_frames(path, fps)
        self._source = self._stack.enter_context(open_source(path, fps=fps))
        frames = prefetch(self._source)
        self._stack.callback(frames.close)
        return frames


def array_frames(path: Path, fps: float) -> Iterator[Frame]:
    """Frames of an array of one per second, sampled as a video's are; each is read when it is wanted.

    Raises:
        UnsupportedMedia: not an array [T, H, W, 3] of uint8 with one frame at least.
    """
    try:
        pictures: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise UnsupportedMedia(f"{str(path)!r} is no array of frames ({error})", uri=str(path)) from error
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or not len(pictures):
        raise UnsupportedMedia(
            f"{str(path)!r} holds {pictures.dtype} {list(pictures.shape)}, where uint8 [T, H, W, 3] is needed",
            uri=str(path),
        )
    return _sampled(pictures, Grid(fps))


def _sampled(pictures: Any, grid: Grid) -> Iterator[Frame]:
    seq = 0
    for second in range(len(pictures)):
        if grid.takes(float(second)):
            yield Frame(seq=seq, timestamp_s=float(second), image=np.array(pictures[second]))
            seq += 1
