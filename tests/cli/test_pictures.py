from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from cacheflow_ray.cli.contact import ACCENT, FAINT
from cacheflow_ray.cli.pictures import Layout, contact_sheet, timeline
from cacheflow_ray.cli.raster import rasterise
from cacheflow_ray.errors import NothingToAnswer
from cacheflow_ray.types import TOKEN_DTYPE
from memory_store.records import Array

GRID = (4, 6)
LAYOUT = Layout(grid=GRID)


@dataclass(frozen=True)
class Block:
    block_idx: int
    start_s: float
    end_s: float
    tokens: Array
    thumbnail: bytes | None = None


def _tokens(kept: npt.NDArray[np.bool_], *, fps: float = 1.0, with_text: bool = False) -> Array:
    """Tokens of kept [F, rows, cols], frame by frame; with_text adds a text token to each frame."""
    rows = []
    for frame, row, col in np.argwhere(kept):
        rows.append((frame, frame / fps, len(rows), row, col))
    if with_text:
        rows += [(frame, frame / fps, len(rows), -1, -1) for frame in range(len(kept))]
    return np.array(rows, TOKEN_DTYPE)


def _blocks(num_frames: int, thumbnail: bytes | None = None, *, size: int = 50) -> list[Block]:
    kept = np.random.default_rng(0).random((num_frames, *GRID)) < 0.3
    kept[:, 0, 0] = True
    tokens = _tokens(kept)
    pieces = [tokens[i : i + size] for i in range(0, len(tokens) - size + 1, size)]
    return [
        Block(i, float(piece["timestamp_s"][0]), float(piece["timestamp_s"][-1]), piece, thumbnail)
        for i, piece in enumerate(pieces)
    ]


def _jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (160, 90)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, format="JPEG")
    return out.getvalue()


def _pixels(png: bytes) -> npt.NDArray[np.int64]:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB")).astype(np.int64)


def _share_of(pixels: npt.NDArray[np.int64], colour: tuple[int, ...], within: int = 12) -> float:
    return float((np.abs(pixels - colour).max(axis=2) <= within).mean())


def test_a_short_stream_is_drawn_patch_by_patch() -> None:
    kept = np.random.default_rng(1).random((10, *GRID)) < 0.4
    kept[[0, -1], 0, 0] = True
    raster = rasterise(_tokens(kept, fps=2.0, with_text=True), GRID)
    np.testing.assert_array_equal(raster.share, kept.reshape(10, 24).T)
    np.testing.assert_allclose(raster.keep_rate, kept.reshape(10, 24).mean(axis=1))
    np.testing.assert_allclose(raster.edges_s, np.arange(11) / 2)
    assert (raster.num_frames, raster.num_kept, raster.frames_per_column) == (10, kept.sum(), 1)
    assert raster.mean_keep_rate == pytest.approx(kept.mean())


def test_a_long_stream_is_binned_and_nothing_gets_lost() -> None:
    kept = np.random.default_rng(2).random((997, *GRID)) < 0.1
    kept[[0, -1], 0, 0] = True
    raster = rasterise(_tokens(kept), GRID, max_columns=100, max_rows=5)
    assert raster.share.shape == (5, 100) and raster.frames_per_column == 10
    patches = np.bincount(np.arange(24) * 5 // 24)
    frames = np.array([10] * 99 + [7])
    assert (raster.share * patches[:, None] * frames).sum() == pytest.approx(kept.sum())
    assert (raster.keep_rate * frames * 24).sum() == pytest.approx(kept.sum())
    assert raster.edges_s[-1] == pytest.approx(997)


def test_frames_without_tokens_count_and_a_pause_stays_empty() -> None:
    tokens = _tokens(np.ones((6, *GRID), bool))
    wholly_dropped = rasterise(tokens[tokens["frame_idx"] != 3], GRID)
    assert wholly_dropped.keep_rate.tolist() == [1, 1, 1, 0, 1, 1]
    tokens["timestamp_s"][tokens["frame_idx"] >= 3] += 100
    paused = rasterise(tokens, GRID)
    assert paused.edges_s.tolist() == [0, 1, 2, 3, 103, 104, 105, 106]
    assert np.isnan(paused.keep_rate).tolist() == [False, False, False, True, False, False, False]


def test_frames_merged_in_pairs_are_one_column_of_tokens() -> None:
    tokens = _tokens(np.ones((6, *GRID), bool), fps=0.5)
    tokens["frame_idx"] *= 2
    raster = rasterise(tokens, GRID, 2)
    assert raster.keep_rate.tolist() == [1] * 6 and raster.mean_keep_rate == 1
    assert (raster.num_frames, raster.frames_per_column) == (12, 2)
    assert raster.edges_s.tolist() == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("num_frames", [10, 300, 10_000])
def test_a_timeline_of_any_length_has_one_size_and_shows_kept_patches(num_frames: int) -> None:
    pixels = _pixels(timeline(_blocks(num_frames), layout=LAYOUT, title=r"$\no{math$ " + "long " * 40))
    assert pixels.shape[1] == 1800 and 800 < pixels.shape[0] < 1200
    assert (pixels[:60, -40:] == 255).all()  # the title ends before the margin
    marked = pixels[250:550, 200:1700]
    assert (marked[:, :, 0] < 200).mean() > 0.15 and marked[:, :, 0].std() > 15


def test_a_timeline_begins_with_the_blocks_pictures() -> None:
    blocks = _blocks(40, _jpeg((250, 120, 10)))
    with_pictures = _pixels(timeline(blocks, layout=LAYOUT, title="x"))
    without = _pixels(timeline(_blocks(40), layout=LAYOUT, title="x"))
    assert with_pictures.shape[0] > without.shape[0]
    assert _share_of(with_pictures, (250, 120, 10)) > 0.05 > _share_of(without, (250, 120, 10)) == 0


def test_one_block_of_one_frame_can_be_drawn() -> None:
    timeline(_blocks(1, size=5)[:1], layout=LAYOUT, title="")


def test_no_blocks_is_an_error() -> None:
    with pytest.raises(NothingToAnswer):
        timeline([], layout=LAYOUT, title="empty")


def test_the_sheet_shows_each_picture_in_its_place_and_scores_as_bars() -> None:
    colours = [(200, 30, 30), (30, 160, 30), (30, 30, 200)]
    items = [(_jpeg(colour), 10.0 * i, 10.0 * i + 5, 0.4 / (i + 1)) for i, colour in enumerate(colours)]
    pixels = _pixels(contact_sheet(items, title="What happened?"))
    centres = [np.argwhere(np.abs(pixels - colour).max(axis=2) < 12).mean(axis=0) for colour in colours]
    assert centres[0][1] < centres[1][1] < centres[2][1]
    blue = np.array(to_rgb(ACCENT)) * 255
    columns = (np.abs(pixels - blue).max(axis=2) < 2).any(axis=0)
    thirds = [columns[40 + i * 344 : 360 + i * 344].sum() for i in range(3)]
    assert thirds == [320, 160, 107]


@pytest.mark.parametrize("thumbnail", [None, b"no jpeg at all"])
def test_an_item_without_a_picture_keeps_its_place(thumbnail: bytes | None) -> None:
    items = [(thumbnail, 0.0, 1.0, 0.5), (_jpeg((200, 30, 30)), 1.0, 2.0, 0.25)]
    pixels = _pixels(contact_sheet(items, title=""))
    ground = tuple(round(255 * part) for part in to_rgb(FAINT))
    assert _share_of(pixels[:, :360], ground, 2) > 0.4
    assert _share_of(pixels[:, 384:], (200, 30, 30)) > 0.4


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9, 30])
def test_a_sheet_of_any_number_of_items_and_a_long_title(count: int) -> None:
    items = [(_jpeg((9, 9, 9), (50, 200)), 0.0, 3600.0, -0.1)] * count
    pixels = _pixels(contact_sheet(items, title="why " * 200 + "x" * 300))
    assert (pixels[:, -30:] == 255).all()  # the title ends before the margin
