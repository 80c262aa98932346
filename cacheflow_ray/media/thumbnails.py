"""Small JPEG pictures of frames, kept with blocks and shown as evidence."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image as Pillow

from cacheflow_ray.media.frames import Image, check_rgb


def thumbnail(image: Image, *, max_side: int = 160, quality: int = 80) -> bytes:
    """JPEG bytes of `image` (uint8 [height, width, 3] RGB), shrunk to fit max_side pixels; never enlarged.

    Raises:
        UnsupportedMedia: the image is not RGB.
    """
    check_rgb(image)
    picture = Pillow.fromarray(image)
    picture.thumbnail((max_side, max_side), Pillow.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=quality, optimize=True)
    return out.getvalue()


def picture_distance(one: bytes, other: bytes) -> float:
    """Mean difference of two `thumbnail` JPEGs, 0..255: 0 for the same bytes; infinity for other sizes.

    JPEGs of one frame that two builds of the libraries decoded and wrote differ by less than 2.
    """
    if one == other:
        return 0.0
    first, second = (np.asarray(Pillow.open(io.BytesIO(jpeg)).convert("RGB"), np.int16) for jpeg in (one, other))
    return float(np.abs(first - second).mean()) if first.shape == second.shape else math.inf
