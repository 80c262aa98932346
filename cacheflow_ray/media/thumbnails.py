"""Small JPEG pictures of frames, kept with blocks and shown as evidence."""

from __future__ import annotations

import io

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
