"""Features of a frame: the same in any company, and the library's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil, SiglipImageProcessorPil

from cacheflow_ray.errors import UnsupportedMedia
from cacheflow_ray.models import VideoModel
from cacheflow_ray.models.family import VISION_BATCH
from cacheflow_ray.models.pixels import DEFAULT_MEAN, DEFAULT_STD, Image, Normalise, to_pixels
from cacheflow_ray.models.qwen_vl import MAX_FRAME_TOKENS, QwenVision
from tests.oracles import moving_frames, toy_model

CPU = torch.device("cpu")
ROUNDING = 1.01  # of 255: two ways to resize may round to neighbouring whole numbers


def units(model: VideoModel, count: int, **how: int) -> list[list[Image]]:
    per_unit = model.vision.frames_per_unit
    images = [frame.image for frame in moving_frames(count * per_unit, **how)]
    return [images[start : start + per_unit] for start in range(0, len(images), per_unit)]


@pytest.mark.parametrize("count,place", [(7, 0), (7, 6), (20, 0), (20, 11), (20, 19)])
def test_features_do_not_depend_on_company(model: VideoModel, count: int, place: int) -> None:
    """Bit for bit: alone, among 7, among 20, wherever it stands."""
    own = units(model, 1, seed=5)[0]
    alone = model.vision.encode([own])[0]
    company = units(model, count, seed=6)
    company[place] = own
    assert torch.equal(model.vision.encode(company)[place], alone)


def test_features_do_not_depend_on_company_in_bfloat16(family: str) -> None:
    """Where kernels choose their order of summation by the size of the batch."""
    model = toy_model(family, "bfloat16")
    many = units(model, 20, seed=6)
    together = model.vision.encode(many)
    for place in (0, 7, 8, 19):
        assert torch.equal(model.vision.encode([many[place]])[0], together[place])


def test_llava_tower_only_ever_sees_one_shape() -> None:
    """Where features would move with the batch size (they do on other devices), there is but one."""
    model, seen = toy_model("tiny-llava-onevision"), set()

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.add(tuple((*args, *kwargs.values())[0].shape))

    model._loaded.model.model.vision_tower.register_forward_pre_hook(look, with_kwargs=True)
    for count in (1, 7, 20):
        model.vision.encode(units(model, count))
    assert seen == {(VISION_BATCH, 3, 112, 112)}


def test_features_do_not_depend_on_company_of_other_sizes(model: VideoModel) -> None:
    own = units(model, 3, seed=5)
    company = [*units(model, 2, height=112, width=56), own[0], *units(model, 9, height=60, width=150), own[1], own[2]]
    found = model.vision.encode(company)
    assert len(found) == len(company)
    for place, wanted in zip((2, 12, 13), model.vision.encode(own), strict=True):
        assert torch.equal(found[place], wanted)


def test_features_have_the_shape_the_grid_says(model: VideoModel) -> None:
    for height, width in ((84, 112), (50, 37), (200, 60)):
        rows, cols = model.vision.grid(height, width)
        features = model.vision.encode(units(model, 1, height=height, width=width))[0]
        assert features.shape == (rows * cols, model.token_width) and features.dtype == model.dtype
    assert model.vision.encode([]) == []


def test_frames_that_differ_have_features_that_differ(model: VideoModel) -> None:
    """Else every test of dropping on these models would be blind."""
    first, last = model.vision.encode(units(model, 2))
    cosines = torch.nn.functional.cosine_similarity(first, last, dim=-1)
    assert cosines.min() < 0.7 and cosines.max() > 0.95


def test_llava_features_are_the_librarys_less_the_newline() -> None:
    model = toy_model("tiny-llava-onevision")
    frames = units(model, 5)
    loaded: Any = model._loaded.model.model
    pixels = to_pixels([unit[0] for unit in frames], 112, 112, Normalise(), CPU)
    with torch.no_grad():
        native = loaded.get_video_features(pixels[None], return_dict=True).pooler_output[0]
    per_frame = native.shape[0] // 5
    assert native.shape[0] == 5 * per_frame + 1
    assert torch.equal(native[-1], loaded.image_newline)
    found = torch.cat(model.vision.encode(frames))
    torch.testing.assert_close(found, native[:-1], rtol=0, atol=1e-5)
    assert torch.equal(model._parts.after_video, loaded.image_newline.detach()[None])


@pytest.mark.parametrize("height,width", [(84, 112), (300, 170), (112, 112), (50, 40)])
def test_llava_pixels_are_the_processors(height: int, width: int) -> None:
    """Bicubic to the tower's square and normalised, as PIL does it."""
    image = picture(height, width)
    processor = SiglipImageProcessorPil(
        size={"height": 112, "width": 112}, resample=3, image_mean=list(DEFAULT_MEAN), image_std=list(DEFAULT_STD)
    )
    wanted = processor(images=[image], return_tensors="pt")["pixel_values"][0]
    assert worst(to_pixels([image], 112, 112, Normalise(), CPU)[0], wanted) <= ROUNDING


QWEN = ["tiny-qwen2-vl", "tiny-qwen2.5-vl", "tiny-qwen3-vl"]
SIZES = [(84, 112), (112, 84), (30, 30), (333, 200), (1080, 1920), (61, 59), (20, 300)]


def qwen_processor(model: VideoModel) -> Any:
    vision: Any = model.vision
    low, high = vision._pixels
    return Qwen2VLImageProcessorPil(
        patch_size=vision._patch,
        merge_size=vision._merge,
        temporal_patch_size=vision.frames_per_unit,
        size={"shortest_edge": low, "longest_edge": high},
        image_mean=list(DEFAULT_MEAN),
        image_std=list(DEFAULT_STD),
    )


@pytest.mark.parametrize("preset", QWEN)
@pytest.mark.parametrize("height,width", SIZES)
def test_qwen_patches_are_the_processors_for_a_repeated_frame(preset: str, height: int, width: int) -> None:
    """Values up to the rounding of the resize, order of patches and pixels exactly."""
    model = toy_model(preset)
    vision: Any = model.vision
    image = picture(height, width)
    native = qwen_processor(model)(images=[image], return_tensors="pt")
    rows, cols = vision.grid(height, width)
    assert native["image_grid_thw"].tolist() == [[1, rows * vision._merge, cols * vision._merge]]
    found = vision._patches([image] * vision.frames_per_unit, (rows, cols), CPU)
    assert found.shape == native["pixel_values"].shape
    colour_and_frame = found.unflatten(1, (3, vision.frames_per_unit, -1))
    wanted = native["pixel_values"].unflatten(1, (3, vision.frames_per_unit, -1))
    assert worst(colour_and_frame.movedim(1, 0), wanted.movedim(1, 0)) <= ROUNDING


@pytest.mark.parametrize("preset", QWEN)
def test_qwen_features_are_the_librarys_for_the_same_patches(preset: str) -> None:
    """Two different frames per patch, several patches in one video; DeepStack levels side by side."""
    model = toy_model(preset)
    vision: Any = model.vision
    frames = units(model, 3)
    grid = vision.grid(84, 112)
    patches = torch.cat([vision._patches(unit, grid, CPU) for unit in frames])
    thw = torch.tensor([[3, grid[0] * vision._merge, grid[1] * vision._merge]])
    with torch.no_grad():
        native = model._loaded.model.model.get_video_features(patches, video_grid_thw=thw, return_dict=True)
    levels = [native.pooler_output, *(getattr(native, "deepstack_features", None) or ())]
    wanted = torch.cat([torch.cat(list(level)) for level in levels], dim=-1)
    assert wanted.shape[1] == model.token_width
    torch.testing.assert_close(torch.cat(vision.encode(frames)), wanted, rtol=0, atol=2e-5)


def test_deepstack_width_is_the_number_of_levels() -> None:
    widths = {preset: toy_model(preset).vision.num_deepstack for preset in QWEN}
    assert widths == {"tiny-qwen2-vl": 0, "tiny-qwen2.5-vl": 0, "tiny-qwen3-vl": 2}
    model = toy_model("tiny-qwen3-vl")
    hidden = model._parts.text_model.config.hidden_size
    assert model.token_width == 3 * hidden
    assert model.embed([1, 2])[:, hidden:].abs().max() == 0, "text adds nothing to the hidden states"


def test_llava_grid_is_fixed_and_qwen_grids_follow_the_picture() -> None:
    llava, qwen = (toy_model(preset).vision for preset in ("tiny-llava-onevision", "tiny-qwen2-vl"))
    assert {llava.grid(*size) for size in SIZES} == {(4, 4)}
    assert qwen.grid(84, 112) == (3, 4) and qwen.grid(112, 84) == (4, 3)
    for height, width in SIZES:
        rows, cols = qwen.grid(height, width)
        assert 1 <= rows * cols <= 16 and (rows < cols) == (height < width)


def test_one_frame_never_takes_a_whole_videos_budget() -> None:
    """Published checkpoints allow millions of pixels, meant for single images or whole videos."""
    model = toy_model("tiny-qwen2-vl")
    vision = QwenVision(model._loaded.model, {"min_pixels": 3136, "max_pixels": 12_845_056}, lambda _: ((), ()))
    rows, cols = vision.grid(1080, 1920)
    assert 0.9 * MAX_FRAME_TOKENS < rows * cols <= MAX_FRAME_TOKENS


def test_a_strip_no_grid_fits_is_refused() -> None:
    with pytest.raises(UnsupportedMedia, match="frames of 900 x 4 pixels are too narrow"):
        toy_model("tiny-qwen2-vl").vision.grid(4, 900)


def test_qwen3_writes_the_time_before_each_patch() -> None:
    model = toy_model("tiny-qwen3-vl")
    before, after = model.vision.frame_text(83.25)
    tokenizer = model._loaded.tokenizer
    assert tokenizer.decode(before) == "<83.2 seconds><|vision_start|>"
    assert tokenizer.decode(after) == "<|vision_end|>"
    assert toy_model("tiny-qwen2-vl").vision.frame_text(83.25) == ((), ())


def picture(height: int, width: int) -> Image:
    """Smooth colours and edges, so that resizing matters; no black or white, which libraries clip differently."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [128 + 90 * np.sin(x / 9), 64 + 128 * ((x // 13 + y // 7) % 2), 128 + 90 * np.cos(y / 5 + x / 31)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def worst(found: Tensor, wanted: Tensor) -> float:
    """Largest difference of normalised pixels [3, ...], in steps of 0..255."""
    scale = torch.tensor(DEFAULT_STD).reshape(3, *[1] * (found.ndim - 1)) * 255
    return float(((found - wanted) * scale).abs().max())
