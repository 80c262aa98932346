"""Test media: a moving picture whose frames tell their number, and the real clips where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from cacheflow_ray.media import Encoding, write_video
from cacheflow_ray.media.frames import Image

H264 = Encoding(options={"preset": "ultrafast", "crf": "12"})


def numbered(count: int, height: int = 48, width: int = 64) -> list[Image]:
    """Frame i shows i as eight black or white bars, most significant bit first, over a red upper-left corner."""
    return [_bars(i, height, width) for i in range(count)]


def _bars(number: int, height: int, width: int) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 3, : width // 3, 0] = 255
    for bit in range(8):
        if number >> (7 - bit) & 1:
            image[height // 2 :, bit * width // 8 : (bit + 1) * width // 8] = 255
    return image


def number_of(image: Image) -> int:
    """The number `numbered` wrote, read back from the decoded picture."""
    height, width, _ = image.shape
    row = image[height * 3 // 4, [int((bit + 0.5) * width / 8) for bit in range(8)], 1]
    return int("".join("1" if value > 127 else "0" for value in row), 2)


def clip(path: Path, count: int = 30, *, fps: float = 25, encoding: Encoding = H264) -> Path:
    need_encoder(encoding.codec)
    write_video(path, numbered(count), fps=fps, codec=encoding)
    return path


def need_encoder(name: str) -> None:
    try:
        Codec(name, "w")
    except UnknownCodecError:
        pytest.skip(f"this build of ffmpeg has no encoder {name}")


def real_clip(name: str) -> Path:
    folder = os.environ.get("CACHEFLOW_CLIPS")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"CACHEFLOW_CLIPS names no folder with {name}")
    return Path(folder) / name


def audio_only(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
