"""Decoded frames to upright RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import SideDataContainer

from cacheflow_ray.media.frames import Image


def to_rgb(frame: VideoFrame) -> Image:
    """uint8 [height, width, 3], upright, of any pixel format, by the frame's own colour matrix; alpha is dropped."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(_upright(np.asarray(image, dtype=np.uint8), frame))


def _upright(image: Image, frame: VideoFrame) -> Image:
    """Turned and mirrored as the display matrix says.

    The matrix is nine int32 a b u c d v x y w; it sends the point (x, y) to (a x + c y, b x + d y). Video is turned in
    quarters, so only signs matter, and whether x comes from x or from y.
    """
    # Not frame.side_data: a frame keeps that and is kept by it, so every picture would wait for the garbage collector.
    data: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if data is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(data)[:20], dtype="<i4").tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
