"""Kept tokens of a stream as a picture's columns: frames over time, binned so that any length stays legible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memory_store.records import Array

Floats = npt.NDArray[np.float64]

#: A pause longer than this many usual columns is drawn as a gap instead of one long frame.
_PAUSE = 4.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Raster:
    """Columns are runs of `frames_per_column` frames, rows are patches (or runs of them), in row-major order.

    Args:
        edges_s: [X + 1] ascending, the columns' borders in seconds.
        share: [Y, X] of a bin's patches in 0..1 that were kept; NaN in a column that is a pause.
        keep_rate: [X] of a column's tokens in 0..1; NaN in a pause.
        num_frames, num_kept: totals; text tokens are not counted.
        mean_keep_rate: of all frames, in 0..1.
    """

    edges_s: Floats
    share: Floats
    keep_rate: Floats
    frames_per_column: int
    num_frames: int
    num_kept: int
    mean_keep_rate: float


def rasterise(
    tokens: Array, grid: tuple[int, int], frames_per_unit: int = 1, *, max_columns: int = 500, max_rows: int = 256
) -> Raster:
    """Bins tokens ([N] of TOKEN_DTYPE, N > 0) by frame and patch.

    A frame without tokens between two with some was seen and wholly dropped: it counts, with a keep rate of 0.

    Args:
        grid: rows and columns of patches in a frame.
        frames_per_unit: frames that are one to the model; their tokens bear the number of the first.
    """
    number = tokens["frame_idx"] // frames_per_unit
    first, last = int(number.min()), int(number.max())
    num_units, num_patches = last - first + 1, grid[0] * grid[1]
    step = -(-num_units // max_columns)
    width = -(-num_units // step)
    units = np.minimum(step, num_units - step * np.arange(width))
    is_patch = (tokens["row"] >= 0) & (tokens["row"] < grid[0]) & (tokens["col"] < grid[1])
    seen, column = tokens[is_patch], (number[is_patch] - first) // step
    keep_rate = np.bincount(column, minlength=width) / (units * num_patches)
    edges_s = _edges(number, tokens["timestamp_s"], first + step * np.arange(width), last)
    share = _share(seen, column, grid, units, max_rows)
    edges_s, share, keep_rate = _with_pauses(edges_s, share, keep_rate)
    return Raster(
        edges_s=edges_s,
        share=share,
        keep_rate=keep_rate,
        frames_per_column=step * frames_per_unit,
        num_frames=num_units * frames_per_unit,
        num_kept=len(seen),
        mean_keep_rate=len(seen) / (num_units * num_patches),
    )


def _share(seen: Array, column: Array, grid: tuple[int, int], units: Array, max_rows: int) -> Floats:
    num_patches = grid[0] * grid[1]
    height, width = min(num_patches, max_rows), len(units)
    patch = seen["row"].astype(np.int64) * grid[1] + seen["col"]
    counts = np.bincount(patch * height // num_patches * width + column, minlength=height * width)
    patches = np.bincount(np.arange(num_patches) * height // num_patches, minlength=height)
    share: Floats = counts.reshape(height, width) / (patches[:, None] * units[None, :])
    return share


def _edges(number: Array, times_s: Array, column_starts: Array, last: int) -> Floats:
    """Start of each column, and the end of the last: one usual unit after the last one's time."""
    idx, at = np.unique(number, return_index=True)
    times = times_s[at]
    steps = np.diff(times) / np.diff(idx)
    period = float(np.median(steps)) if len(steps) else 1.0
    return np.append(np.interp(column_starts, idx, times), np.interp(last, idx, times) + period)


def _with_pauses(edges_s: Floats, share: Floats, keep_rate: Floats) -> tuple[Floats, Floats, Floats]:
    """Cuts columns that last far longer than usual, and puts an empty column in the time that is left."""
    usual = float(np.median(np.diff(edges_s)))
    long = np.flatnonzero(np.diff(edges_s) > _PAUSE * usual)
    edges_s = np.insert(edges_s, long + 1, edges_s[long] + usual)
    return edges_s, np.insert(share, long + 1, np.nan, axis=1), np.insert(keep_rate, long + 1, np.nan)
