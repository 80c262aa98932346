"""Writing of small videos, for the demo, the synthetic world and tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
from av import VideoFrame
from av.error import FFmpegError
from av.video.stream import VideoStream

from cacheflow_ray.errors import MediaError, UnsupportedMedia
from cacheflow_ray.media.frames import Frame, Image, check_rgb

#: Ticks per second of videos written from frames with times of their own; the MPEG clock.
_TICKS_PER_S = 90_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How to write: ffmpeg's names of encoder and pixel format, options of the encoder, and clockwise quarter turns
    (0, 90, 180, 270 degrees) a player is asked to make."""

    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    rotation: int = 0


def write_video(
    path: str | Path, frames: Iterable[Image | Frame], *, fps: float | Fraction = 25, codec: str | Encoding = "libx264"
) -> None:
    """Encodes frames into the container that the path's suffix names.

    Args:
        frames: at least one, all of the first one's size. Images (uint8 [height, width, 3] RGB) are shown `fps` to the
            second; a `Frame` is shown at its own timestamp (rounded to the container's ticks).

    Raises:
        UnsupportedMedia: no frames, unequal or odd sizes where the pixel format wants even ones, no such encoder, or a
            container that cannot hold it (AVI: times of their own). What was written of the file is left.
        MediaError: the file cannot be written.
    """
    encoding = codec if isinstance(codec, Encoding) else Encoding(codec=codec)
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise UnsupportedMedia(f"{str(path)!r}: a video needs at least one frame")
    if isinstance(first, Frame) and Path(path).suffix.lower() == ".avi":
        raise UnsupportedMedia(f"{str(path)!r}: AVI knows one steady rate only: give images, or write mp4 or mkv")
    try:
        _encode(str(path), chain((first,), rest), first, Fraction(fps).limit_denominator(100_000), encoding)
    except (FFmpegError, ValueError) as error:
        text = " ".join(str(error).split())
        what = f"{str(path)!r}: {encoding.codec} cannot write this ({text})"
        raise UnsupportedMedia(what, codec=encoding.codec) from error
    except OSError as error:
        raise MediaError(f"{str(path)!r} cannot be written ({error}): check the folder and free space") from error


def _encode(
    path: str, frames: Iterable[Image | Frame], first: Image | Frame, rate: Fraction, encoding: Encoding
) -> None:
    with av.open(path, "w") as container:
        stream = cast(VideoStream, container.add_stream(encoding.codec, rate=rate, options=dict(encoding.options)))
        height, width, _ = _image(first).shape
        tick = Fraction(1, _TICKS_PER_S) if isinstance(first, Frame) else 1 / rate
        _configure(stream, width, height, encoding, tick)
        for i, frame in enumerate(frames):
            picture = VideoFrame.from_ndarray(_checked(frame, width, height), format="rgb24")
            time_s = Fraction(frame.timestamp_s) if isinstance(frame, Frame) else i / rate
            picture.time_base = tick
            picture.pts = round(time_s / tick)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _configure(stream: VideoStream, width: int, height: int, encoding: Encoding, tick: Fraction) -> None:
    stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixel_format
    stream.codec_context.time_base = tick
    if encoding.rotation:
        stream.set_display_rotation(-encoding.rotation)


def _image(frame: Image | Frame) -> Image:
    return frame.image if isinstance(frame, Frame) else frame


def _checked(frame: Image | Frame, width: int, height: int) -> Image:
    image = _image(frame)
    check_rgb(image)
    if image.shape[:2] != (height, width):
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise UnsupportedMedia(f"a frame is {size}, the first one {width}x{height}: resize it")
    return image
