from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cacheflow_ray.errors import UnsupportedMedia
from cacheflow_ray.media import open_source
from tests.media.clips import number_of, numbered


def _folder(tmp_path: Path, count: int = 12) -> Path:
    suffixes = ("png", "bmp", "webp", "JPG")
    for i, image in enumerate(numbered(count)):
        Image.fromarray(image).save(tmp_path / f"shot{i}.{suffixes[i % 4]}", quality=95)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def test_a_folder_is_a_video_in_natural_order(tmp_path: Path) -> None:
    with open_source(_folder(tmp_path), fps=None) as source:
        frames = list(source)
    assert [number_of(f.image) for f in frames] == list(range(12))
    assert [f.timestamp_s for f in frames] == list(range(12))
    assert (source.info.container, source.info.num_frames, source.info.duration_s) == ("folder", 12, 12.0)
    assert (source.info.width, source.info.height) == (64, 48)


def test_the_rate_of_a_folder_gives_its_times_and_drops_nothing(tmp_path: Path) -> None:
    with open_source(_folder(tmp_path), fps=4.0, start_seq=3) as source:
        frames = list(source)
    assert [(f.seq, f.timestamp_s, number_of(f.image)) for f in frames] == [(i, i / 4, i) for i in range(3, 12)]


def test_a_damaged_image_is_left_out_and_its_time_stays_empty(tmp_path: Path) -> None:
    folder = _folder(tmp_path, 5)
    whole = (folder / "shot0.png").read_bytes()
    (folder / "shot2.webp").write_bytes(b"nonsense")
    (folder / "shot4.png").write_bytes(whole[: len(whole) // 2])
    with open_source(folder, fps=None) as source:
        assert [(f.seq, f.timestamp_s) for f in source] == [(0, 0.0), (1, 1.0), (2, 3.0)]
    assert source.report.errors == 2


def test_folder_identity_follows_names_and_sizes(tmp_path: Path) -> None:
    before = open_source(_folder(tmp_path), fps=1.0).info.identity
    assert open_source(tmp_path, fps=2.0).info.identity == before
    (tmp_path / "shot0.png").rename(tmp_path / "shot99.png")
    assert open_source(tmp_path, fps=1.0).info.identity != before


@pytest.mark.parametrize("as_object", [False, True])
def test_one_image_is_one_frame_whatever_its_name(tmp_path: Path, as_object: bool) -> None:
    path = tmp_path / "picture"
    Image.fromarray(numbered(9)[8]).save(path, format="PNG")
    with open_source(io.BytesIO(path.read_bytes()) if as_object else path, fps=1.0) as source:
        frames = list(source)
    assert [(f.seq, f.timestamp_s, number_of(f.image)) for f in frames] == [(0, 0.0, 8)]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    turned = np.ascontiguousarray(np.rot90(numbered(6)[5]))
    Image.fromarray(turned).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    frame = next(open_source(tmp_path / "phone.jpg", fps=1.0))
    assert frame.image.shape == (48, 64, 3) and number_of(frame.image) == 5


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("RGBA", (10, 200, 30, 128), (10, 200, 30)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 0x8001, (128, 128, 128)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_any_colour_mode_becomes_rgb(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    Image.new(mode, (7, 5), colour).save(tmp_path / "c.png")
    image = next(open_source(tmp_path / "c.png", fps=1.0)).image
    assert image.shape == (5, 7, 3) and image.flags.c_contiguous
    assert tuple(image[2, 3]) == expected


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UnsupportedMedia, match="above the limit"):
        open_source(tmp_path / "bomb.png", fps=1.0)
