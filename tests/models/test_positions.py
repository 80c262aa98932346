"""Position rules: what the window sees and what a context gives differ by a shift alone, and agree with the library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cacheflow_ray.models import VideoModel
from cacheflow_ray.models.positions import OneSegment, Positions, SegmentPerFrame, Sequential
from tests.models.streams import tokens_of_units

RULES: list[Positions] = [
    Sequential(),
    *(OneSegment(interval) for interval in (1.0, 4.0, 4 / 3, 0.4)),
    SegmentPerFrame(),
]
NUM_TEXT = (3, 1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Positions, Any, tuple[int, int]]:
    """A rule, the tokens of a stream in which each frame keeps at least one patch, and its grid."""
    rule = draw(st.sampled_from(RULES))
    grid = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    patches = st.sets(st.integers(0, grid[0] * grid[1] - 1), min_size=1).map(sorted)
    text = NUM_TEXT if isinstance(rule, SegmentPerFrame) else (0, 0)
    return rule, tokens_of_units(rule, draw(st.lists(patches, min_size=1, max_size=7)), grid, text), grid


@given(cases(), st.data())
def test_contiguous_tokens_keep_their_distances_at_any_cut(
    case: tuple[Positions, Any, tuple[int, int]], data: st.DataObject
) -> None:
    """A context of tokens contiguous in the stream is the stream shifted as the window shifts it."""
    rule, tokens, grid = case
    cut = data.draw(st.integers(0, len(tokens) - 1))
    end = data.draw(st.integers(cut + 1, len(tokens)))
    start = data.draw(st.integers(0, 100))
    part = tokens[cut:end]
    found, _ = rule.context(part, start, grid)
    assert found.shape == (rule.num_axes, end - cut) and found.dtype == torch.int64
    assert torch.equal(found - rule.stream(part), (start - rule.shift(part[0])).expand_as(found))


def test_a_frame_of_another_grid_keeps_its_room() -> None:
    rule = SegmentPerFrame()
    wide = tokens_of_units(rule, [list(range(8))], (2, 4), NUM_TEXT)
    small = tokens_of_units(rule, [list(range(4))], (2, 2), NUM_TEXT)
    small["frame_idx"], small["pos"] = small["frame_idx"] + 1, small["pos"] + wide["pos"][-1] + 1
    tokens = np.concatenate([wide, small])
    found, _ = rule.context(tokens, 0, (2, 2))
    assert torch.equal(found, rule.stream(tokens))


@given(cases(), st.data())
def test_gaps_are_closed(case: tuple[Positions, Any, tuple[int, int]], data: st.DataObject) -> None:
    """Two runs with a gap between them stand as close as neighbours do, each as it stands in the stream."""
    rule, tokens, grid = case
    ends = sorted(data.draw(st.lists(st.integers(0, len(tokens)), min_size=4, max_size=4)))
    runs = [tokens[ends[0] : ends[1]], tokens[ends[2] : ends[3]]]
    found, _ = rule.context(np.concatenate(runs), 5, grid)
    for run, columns in zip(runs, found.split([len(run) for run in runs], dim=1), strict=True):
        assert (columns - rule.stream(run)).unique(dim=1).shape[1] <= 1
    neighbours = {Sequential: 1, SegmentPerFrame: max(grid), OneSegment: getattr(rule, "interval", 0) + 1}
    steps = found[0].diff()
    assert all(0 <= step <= neighbours[type(rule)] for step in steps)
    assert found.shape[1] == 0 or found[0, 0] == 5


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_nothing_takes_no_room(rule: Positions) -> None:
    positions, text_start = rule.context(tokens_of_units(rule, [], (2, 2), (0, 0)), 7, (2, 2))
    assert positions.shape == (rule.num_axes, 0) and text_start == 7


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_positions_do_not_depend_on_where_a_stream_stands(rule: Positions) -> None:
    """The same blocks retrieved from hour one and from hour 300: the same context (whole time steps)."""
    if isinstance(rule, OneSegment) and not rule.interval.is_integer():
        pytest.skip("a broken interval rounds down from the stream's start")
    tokens = tokens_of_units(rule, [[0, 3], [1], [0, 1, 2, 3]], (2, 2), (2, 1) if rule == RULES[-1] else (0, 0))
    late = tokens.copy()
    late["pos"] += 1_000_000
    (early_at, early_text), (late_at, late_text) = (rule.context(each, 9, (2, 2)) for each in (tokens, late))
    assert torch.equal(early_at, late_at) and early_text == late_text


@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0, 3.0, 8.0, None])
@pytest.mark.parametrize("units,grid", [(1, (2, 3)), (5, (3, 2)), (9, (1, 1))])
def test_undropped_video_stands_where_the_model_puts_it(
    family: str, model: VideoModel, fps: float | None, units: int, grid: tuple[int, int]
) -> None:
    """Prefix, whole video and text after it, against the unmodified model's `get_rope_index`."""
    rule, before = model.positions(fps), model.prefix.length
    if rule.num_axes == 1:
        every = tokens_of_units(rule, [list(range(grid[0] * grid[1]))] * units, grid, (0, 0))
        found, text_start = rule.context(every, before, grid)
        assert found.tolist() == [list(range(before, before + len(every)))] and text_start == before + len(every)
        return
    wanted, num_text = native_positions(family, model, fps, units, grid)
    every = tokens_of_units(rule, [list(range(grid[0] * grid[1]))] * units, grid, num_text)
    found, text_start = rule.context(every, before, grid)
    assert torch.equal(found, wanted[:, before : before + len(every)])
    assert wanted[:, before + len(every)].tolist() == [text_start] * 3


def native_positions(
    family: str, model: VideoModel, fps: float | None, units: int, grid: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """[3, T] of prefix, video and four tokens of text; and how many text tokens each unit has before and after."""
    loaded, vision = model._loaded, model.vision
    video = loaded.model.config.video_token_id
    before, after = vision.frame_text(0.25)
    inner = [*before, *[video] * (grid[0] * grid[1]), *after] * units
    ids = torch.tensor([[*model.prompt.prefix_ids, *inner, *model.prompt.prefix_ids[:4]]])
    merge = vision._merge
    extra: dict[str, Any] = {"video_grid_thw": torch.tensor([[units, grid[0] * merge, grid[1] * merge]])}
    if family == "tiny-qwen2.5-vl" and fps is not None:
        extra["second_per_grid_ts"] = torch.tensor([vision.frames_per_unit / fps])
    positions, _ = loaded.model.model.get_rope_index(ids, mm_token_type_ids=(ids == video).int() * 2, **extra)
    return positions[:, 0], (len(before), len(after))
