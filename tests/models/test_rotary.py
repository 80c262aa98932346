"""Angles: the module's own where float32 is exact enough, float64's everywhere else."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

from cacheflow_ray.errors import UnsupportedModel
from cacheflow_ray.models import VideoModel
from cacheflow_ray.models.rotary import Rotary

CPU = torch.device("cpu")


def module_of(model: VideoModel) -> Any:
    return model._parts.text_model.rotary_emb


def module_tables(module: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos, sin [T, R/2] as the unmodified module computes them in float32."""
    ids = positions if len(positions) == 1 else positions[:, None]
    tables = module(torch.zeros(1), ids)
    return tuple(table[0, :, : table.shape[-1] // 2] for table in tables)


def random_positions(axes: int, high: int) -> Tensor:
    return torch.randint(0, high, (axes, 50), generator=torch.Generator().manual_seed(0))


def with_rope(model: VideoModel, **rope: Any) -> Any:
    """The model's rotary module, made anew with another rule."""
    config = copy.deepcopy(module_of(model).config)
    config.rope_parameters = {**config.rope_parameters, **rope}
    return type(module_of(model))(config)


def test_small_positions_equal_the_modules_own_tables(model: VideoModel) -> None:
    module, positions = module_of(model), random_positions(model.positions(None).num_axes, 50)
    found, wanted = Rotary(module, CPU)(positions), module_tables(module, positions)
    assert found[0].dtype == found[1].dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_one_axis_stands_for_three_equal_ones(model: VideoModel) -> None:
    positions = random_positions(1, 1000)
    cos, sin = Rotary(module_of(model), CPU)(positions)
    for found, wanted in zip((cos, sin), Rotary(module_of(model), CPU)(positions.expand(3, -1)), strict=True):
        assert torch.equal(found, wanted)


def test_positions_of_a_million_are_exact_against_float64(model: VideoModel) -> None:
    rotary, frequencies = Rotary(module_of(model), CPU), module_of(model).inv_freq.double().numpy()
    at = np.array([999_999, 1_000_000, 1_000_001])
    cos, sin = rotary(torch.from_numpy(at)[None])
    angles = at[:, None].astype(np.float64) * frequencies
    assert np.abs(cos.numpy() - np.cos(angles)).max() < 1e-7
    assert np.abs(sin.numpy() - np.sin(angles)).max() < 1e-7


def layout(model: VideoModel) -> list[int]:
    """Which axis each rotary pair takes: the one whose position moves its angle."""
    rotary, moved = Rotary(module_of(model), CPU), []
    for axis in range(3):
        positions = torch.zeros((3, 1), dtype=torch.int64)
        positions[axis] = 1
        moved.append(rotary(positions)[1][0] != 0)
    assert torch.stack(moved).sum(0).eq(1).all(), "every pair follows exactly one axis"
    return torch.stack(moved).int().argmax(0).tolist()


def test_mrope_layouts_are_the_families_own(family: str, model: VideoModel) -> None:
    """Sections of 2, 3, 3 pairs in a row for Qwen2-VL and 2.5; 4, 2, 2 interleaved for Qwen3-VL."""
    wanted = {
        "tiny-llava-onevision": None,
        "tiny-qwen2-vl": [0, 0, 1, 1, 1, 2, 2, 2],
        "tiny-qwen2.5-vl": [0, 0, 1, 1, 1, 2, 2, 2],
        "tiny-qwen3-vl": [0, 1, 2, 0, 1, 2, 0, 0],
    }[family]
    if wanted is not None:
        assert layout(model) == wanted


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)  # fmt: skip
def test_constant_rules_equal_the_modules_own_tables(model: VideoModel, rope: dict[str, Any]) -> None:
    module = with_rope(model, **rope)
    positions = random_positions(model.positions(None).num_axes, 50)
    torch.testing.assert_close(Rotary(module, CPU)(positions), module_tables(module, positions), rtol=0, atol=1e-5)
    plain = Rotary(module_of(model), CPU)(positions)[0]
    assert (Rotary(module, CPU)(positions)[0] - plain).abs().max() > 0.01, "the rule changes something"


def test_length_dependent_rule_is_refused_by_name() -> None:
    config = hf.Qwen2Config(
        hidden_size=64, num_attention_heads=4,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    )  # fmt: skip
    module = hf.models.qwen2.modeling_qwen2.Qwen2RotaryEmbedding(config)
    with pytest.raises(UnsupportedModel, match="'dynamic' changes with the length") as caught:
        Rotary(module, CPU)
    assert caught.value.ids == {"rope_type": "dynamic"}


def test_unknown_rule_is_refused_by_name() -> None:
    module: Any = SimpleNamespace(config=None, rope_type="proportional")
    with pytest.raises(UnsupportedModel, match=r"'proportional' is not known here.*default, linear, llama3, yarn"):
        Rotary(module, CPU)
