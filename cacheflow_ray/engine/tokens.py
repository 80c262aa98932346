"""Token metadata of one unit: what is remembered of each token beside its KV."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cacheflow_ray.media import Frame
from cacheflow_ray.models.positions import Grid, Positions
from cacheflow_ray.types import TOKEN_DTYPE


def unit_tokens(
    frame: Frame,
    kept: npt.NDArray[np.int64],
    grid: Grid,
    num_text: tuple[int, int],
    positions: Positions,
    next_pos: int,
) -> tuple[npt.NDArray[Any], int]:
    """Metadata of a unit's tokens in stream order, and the stream's next free position.

    Args:
        frame: the unit's first.
        kept: patch numbers that survived, ascending, row by row in `grid`.
        num_text: text tokens before and after the patches.
        positions, next_pos: the stream's position rule and axis.

    Returns:
        [num_text[0] + len(kept) + num_text[1]] of TOKEN_DTYPE.
    """
    before, after = num_text
    tokens = np.empty(before + len(kept) + after, dtype=TOKEN_DTYPE)
    tokens["frame_idx"], tokens["timestamp_s"] = frame.seq, frame.timestamp_s
    tokens["row"] = tokens["col"] = -1
    patches = tokens[before : before + len(kept)]
    patches["row"], patches["col"] = np.divmod(kept, grid[1])
    tokens["pos"], next_pos = positions.assign(next_pos, tokens["row"] < 0, grid)
    return tokens, next_pos
