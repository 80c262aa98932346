"""What every media source speaks in: frames, what is known of a source, and how its decoding went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from cacheflow_ray.errors import UnsupportedMedia

Image: TypeAlias = npt.NDArray[np.uint8]

#: Larger pictures are refused: 8K video passes, a decompression bomb does not.
MAX_PIXELS = 8192 * 8192


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One sampled frame.

    Args:
        seq: counts the sampled frames of a source from 0.
        timestamp_s: presentation time in seconds since the start of the container.
        image: uint8 [height, width, 3] RGB, C-contiguous, upright (rotation applied). Nobody writes to it.

    Raises:
        UnsupportedMedia: seq or timestamp is negative, or the image is something else.
    """

    seq: int
    timestamp_s: float
    image: Image

    def __post_init__(self) -> None:
        if self.seq < 0 or not 0.0 <= self.timestamp_s < float("inf"):
            raise UnsupportedMedia(f"frame {self.seq} at {self.timestamp_s} s: both must be finite and not negative")
        check_rgb(self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What is known of a source once its first picture has been decoded.

    Args:
        uri: path or address, without a password.
        container, codec: ffmpeg's names ("mov,mp4,m4a,3gp,3g2,mj2", "h264"); "folder" or "image" for pictures.
        width, height: of the first frame as it comes out, in pixels (after rotation).
        duration_s, avg_fps, num_frames: as the container declares them, None where it does not.
        identity: equal for equal content. Regular files: size and hash of head and tail; folders: names and sizes;
            addresses and pipes, whose content cannot be known beforehand: the address.
    """

    uri: str
    container: str
    codec: str
    width: int
    height: int
    duration_s: float | None
    avg_fps: float | None
    num_frames: int | None
    identity: str

    @property
    def is_address(self) -> bool:
        """Whether the content cannot be known beforehand (an address, a pipe), and may break off or go on."""
        return self.identity.startswith("uri:")

    @property
    def is_live(self) -> bool:
        """An address that declares no length: a camera. Every connection counts frames and time from 0 again."""
        return self.is_address and self.duration_s is None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeReport:
    """How decoding went so far.

    Args:
        decoded: pictures that came out of the decoder whole.
        sampled: of these, how many the sampling grid took (those before `start_seq` included).
        skipped_non_monotonic: pictures left out because their time did not advance.
        errors: packets, pictures or image files that were damaged and left out.
        broken_at_s: time of the last picture before decoding ended early; None while nothing is amiss.
        reason: one line on why it ended early, or None.
    """

    decoded: int = 0
    sampled: int = 0
    skipped_non_monotonic: int = 0
    errors: int = 0
    broken_at_s: float | None = None
    reason: str | None = None

    @property
    def warning(self) -> str | None:
        """One line on everything that went wrong, None when nothing did."""
        told = []
        if self.reason is not None:
            told.append(f"the source broke off at {self.broken_at_s:.2f} s: {self.reason}")
        if self.errors:
            told.append(f"{_were(self.errors, 'damaged piece')} left out")
        if self.skipped_non_monotonic:
            told.append(f"{_were(self.skipped_non_monotonic, 'frame')} left out: their timestamps run back")
        return "; ".join(told) or None


def _were(count: int, noun: str) -> str:
    return f"{count} {noun} was" if count == 1 else f"{count} {noun}s were"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded picture not yet turned into RGB: most pictures are never sampled, so that work waits for `render`."""

    timestamp_s: float
    render: Callable[[], Image]


@dataclass(slots=True, kw_only=True)
class Damage:
    """Written by a reader while it reads: damaged pieces left out, and why it ended early (None: it did not)."""

    errors: int = 0
    reason: str | None = None


class Reader(Protocol):
    """The seam between kinds of sources: pictures in presentation order, never an exception after the first one.

    `tick_s` is the resolution of its timestamps in seconds (0: exact).
    """

    info: SourceInfo
    tick_s: float
    damage: Damage

    def pictures(self) -> Iterator[Picture]: ...

    def pictures_from(self, timestamp_s: float) -> Iterator[Picture]:
        """The same pictures from some place at or before `timestamp_s` on, or from a later one where there is none to
        begin at; may be called once the first picture of `pictures` has come, and ends that iteration."""

    def close(self) -> None: ...


def check_rgb(image: npt.NDArray[Any]) -> None:
    """Raises UnsupportedMedia unless `image` is uint8 [height, width, 3], not empty and C-contiguous."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UnsupportedMedia(f"an image of {image.dtype} {list(image.shape)} is not RGB: give uint8 [H, W, 3]")
    if not image.flags.c_contiguous:
        raise UnsupportedMedia("an image must be C-contiguous: pass it through numpy.ascontiguousarray")
