from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cacheflow_ray.errors import MediaError, UnsupportedMedia
from cacheflow_ray.media import Encoding, Frame, open_source, thumbnail, write_video
from tests.media.clips import numbered


def test_a_lossless_video_comes_back_bit_by_bit(tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (33, 17, 3), dtype=np.uint8) for i in range(6)]
    write_video(tmp_path / "a.mkv", images, fps=29.97, codec=Encoding(codec="ffv1", pixel_format="bgr0"))
    with open_source(tmp_path / "a.mkv", fps=None) as source:
        frames = list(source)
    assert all(np.array_equal(f.image, image) for f, image in zip(frames, images, strict=True))
    assert source.info.avg_fps == pytest.approx(29.97, rel=1e-3)


@pytest.mark.parametrize(
    ("frames", "codec"),
    [
        ([], "libx264"),
        (numbered(1) + numbered(1, 32, 32), "libx264"),
        (numbered(1, 47, 63), "libx264"),
        (numbered(1), "no-such-encoder"),
        ([np.zeros((48, 64), np.uint8)], "libx264"),
        ([np.zeros((48, 64, 3), np.float32)], "libx264"),
    ],
    ids=["no frames", "two sizes", "odd size", "encoder", "grey", "float"],
)
def test_what_cannot_be_written_is_one_clear_error(tmp_path: Path, frames: list[np.ndarray], codec: str) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        write_video(tmp_path / "a.mp4", frames, codec=codec)
    assert "\n" not in str(caught.value)


def test_an_unwritable_place_is_a_media_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MediaError):
        write_video(tmp_path / "file" / "a.mp4", numbered(2))


def test_avi_refuses_times_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMedia, match="steady rate"):
        write_video(tmp_path / "a.avi", [Frame(seq=0, timestamp_s=0.0, image=numbered(1)[0])])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (120, 160)), ((640, 480), (160, 120)), ((40, 60), (40, 60)), ((1, 999), (1, 160))],
)
def test_thumbnails_fit_and_are_never_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = Image.open(io.BytesIO(thumbnail(np.full((*size, 3), (200, 30, 60), np.uint8))))
    assert (picture.format, picture.mode) == ("JPEG", "RGB")
    assert (picture.height, picture.width) == expected
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 60)).max() <= 6
