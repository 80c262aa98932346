"""What may be decoded: pictures are looked at by their header only."""

from __future__ import annotations

import resource
import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheflow_ray.actors.api import FramePayload
from cacheflow_ray.config import ServiceLimits
from cacheflow_ray.errors import LimitExceeded, UnsupportedMedia
from cacheflow_ray.service.pictures import check_picture
from tests.service.serving import picture

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")

LIMITS = ServiceLimits(max_pixels=1000, max_frame_bytes=1 << 20)
KINDS = ("JPEG", "PNG", "WEBP", "BMP")


def check(data: bytes, **fields: int) -> None:
    check_picture(FramePayload(seq=3, timestamp_s=0.0, data=data, **fields), LIMITS)


def png_bomb(width: int, height: int) -> bytes:
    """A whole header that promises far more than follows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))


#: A whole lossless WebP of 16383 x 16383 black pixels.
WEBP_BOMB = bytes.fromhex("524946461a000000574542505650384c0e0000002ffebfff0f071011fd0f4444ff03")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (25, 40)])
def test_a_picture_within_the_limits_passes(kind: str, size: tuple[int, int]) -> None:
    check(picture(*size, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_one_pixel_too_many_is_too_many(kind: str) -> None:
    with pytest.raises(LimitExceeded, match="1001 is more than 1000 pixels") as raised:
        check(picture(1001, 1, kind))
    assert raised.value.ids["limit"] == "max_pixels"


@pytest.mark.parametrize(
    "bomb", [png_bomb(1 << 20, 1 << 10), png_bomb(2**31 - 1, 2**31 - 1), png_bomb(60_000, 2_000), WEBP_BOMB]
)
def test_a_bomb_is_refused_and_nothing_of_it_decoded(bomb: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LimitExceeded):
        check(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


@pytest.mark.parametrize(
    "data", [b"", b"x", b"BM", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match="frame 3 is no JPEG"):
        check(data)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_picture_passes_or_is_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    whole = bytearray(picture(20, 20, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, min(len(whole), 64) - 1))] = data.draw(st.integers(0, 255))
    with suppress(LimitExceeded, UnsupportedMedia):
        check(bytes(whole[: data.draw(st.integers(1, len(whole)))]))


def test_raw_rgb_is_measured_by_what_it_says() -> None:
    check(bytes(3000), width=1000, height=1)
    with pytest.raises(LimitExceeded, match="max_pixels"):
        check(bytes(3003), width=1001, height=1)


def test_bytes_have_a_limit_too() -> None:
    with pytest.raises(LimitExceeded, match="max_frame_bytes"):
        check(bytes((1 << 20) + 1))
