"""Whether a picture may be decoded at all: looked at by its header, before memory is spent on it."""

from __future__ import annotations

import io
import struct

from PIL import Image as Pillow

from cacheflow_ray.actors.api import FramePayload
from cacheflow_ray.config import ServiceLimits
from cacheflow_ray.errors import LimitExceeded, UnsupportedMedia
from cacheflow_ray.service.limits import check

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_BOMBS = (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning)
#: What Pillow raises on what is no picture, beside its OSError for most.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, struct.error)


def check_picture(frame: FramePayload, limits: ServiceLimits) -> None:
    """Of a frame without a size of its own (width 0), the encoded picture's is read.

    Raises:
        LimitExceeded: too many bytes or pixels.
        UnsupportedMedia: no JPEG, PNG, WebP or BMP.
    """
    of_frame = f"of a frame (frame {frame.seq})"
    check("max_frame_bytes", limits.max_frame_bytes, len(frame.data), f"bytes {of_frame}: compress it more")
    num_pixels = frame.width * frame.height if frame.width else _encoded_pixels(frame, limits)
    check("max_pixels", limits.max_pixels, num_pixels, f"pixels {of_frame}: scale it down")


def _encoded_pixels(frame: FramePayload, limits: ServiceLimits) -> int:
    """Width x height as the header says: nothing is decoded."""
    try:
        with Pillow.open(io.BytesIO(frame.data), formats=_FORMATS) as opened:
            return opened.width * opened.height
    except _BOMBS:
        raise LimitExceeded(
            f"max_pixels: far more than {limits.max_pixels} pixels of a frame (frame {frame.seq}): scale it down",
            limit="max_pixels",
            value=limits.max_pixels,
            seq=frame.seq,
        ) from None
    except _DAMAGED:
        raise UnsupportedMedia(f"frame {frame.seq} is no JPEG, PNG, WebP or BMP: send one", seq=frame.seq) from None
