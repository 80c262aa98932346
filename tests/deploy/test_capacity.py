"""The arithmetic of capacity, against published sizes, the models' own dimensions and bytes that are really written."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from cacheflow_ray.core.summary import default_summary, make_summary
from cacheflow_ray.models.random_weights import PRESETS, byte_tokenizer
from cacheflow_ray.published import ENCODING_7B
from memory_store.codec import encode_block
from memory_store.records import TOKEN_DTYPE, Block
from tests.deploy.lines import DEPLOY


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("capacity", DEPLOY / "capacity.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["capacity"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


capacity: Any = _loaded()
MODELS = capacity.MODELS


@pytest.mark.parametrize("name", MODELS)
def test_dimensions_are_the_models(name: str) -> None:
    build, video, _ = PRESETS[name]
    config = build(byte_tokenizer(video))
    text, model = config.text_config, MODELS[name]
    with torch.device("meta"):
        weights = dict(transformers.LlavaOnevisionForConditionalGeneration(config).named_parameters())
    head_dim = text.hidden_size // text.num_attention_heads
    assert (model.layers, model.kv_heads, model.head_dim, model.width) == (
        text.num_hidden_layers,
        text.num_key_value_heads,
        head_dim,
        text.hidden_size,
    )
    of_layers = sum(own.numel() for key, own in weights.items() if "language_model.layers." in key)
    assert model.layer_parameters == pytest.approx(of_layers, rel=1e-3)
    assert model.parameters == pytest.approx(sum(own.numel() for own in weights.values()), rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("codec", capacity.CODECS)
def test_a_blocks_bytes_are_those_that_are_written(name: str, codec: str) -> None:
    model = MODELS[name]
    shape = (model.layers, 2, model.kv_heads, model.block_tokens, model.head_dim)
    summary = make_summary(default_summary(model.block_tokens), model.head_dim)
    vectors = np.zeros((2, summary.vectors_per_block, model.kv_heads, model.head_dim), np.float32)
    block = Block(
        stream_id="door",
        block_idx=0,
        tokens=np.zeros(model.block_tokens, TOKEN_DTYPE),
        kv=np.zeros(shape, np.float16),
        summary=vectors,
    )
    written = len(encode_block(block, "fingerprint", codec)) + vectors.nbytes
    assert model.block_bytes(codec) == pytest.approx(written, rel=1e-3)


def test_published_sizes_come_out() -> None:
    """2.3 and 10.7 MiB a block of KV, 37.7 GiB an hour of 7B with nothing dropped, 690 MB (658 MiB) for 64 blocks."""
    small, large = MODELS["llava-ov-0.5b"], MODELS["llava-ov-7b"]
    kv = [2 * own.numbers_per_token * own.block_tokens for own in (small, large)]
    assert [round(own / 2**20, 1) for own in kv] == [2.3, 10.7]
    assert round(large.blocks_per_hour(1.0, 1.0) * kv[1] / 2**30, 1) == 37.7
    assert small.block_tokens * small.window_blocks == pytest.approx(15_000, rel=0.01)
    assert large.vision_flop / 1e12 == 0.6


def test_the_assumed_speed_is_what_the_published_one_amounts_to() -> None:
    large = MODELS["llava-ov-7b"]
    whole = next(own for own in ENCODING_7B if own["drop"] == 0.0)
    assert whole["frames_per_s"] * large.frame_flop(1.0) / 1e12 == pytest.approx(50, rel=0.03)


def test_a_vector_in_the_library_takes_what_was_measured() -> None:
    """139 bytes (sq8) and 35 (rabitq) for 128 numbers, as memory_store/library/segment.py says."""
    sizes = {name: size(128) for name, size in capacity.INDEXES.items()}
    assert list(sizes.values()) == [512, 139, 35]


def test_a_plan_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    capacity.main(
        ["plan", "--model", "llava-ov-7b", "--streams", "75", "--keep", "0.2", "--tflops", "50", "--days", "1"]
    )
    said = {line[:24].strip(): line[24:] for line in capsys.readouterr().out.splitlines()}
    assert said["encoder GPUs"] == "3"  # 37.1 each
    assert said["blocks an hour"] == f"{75 * 3600 * 0.2:,.0f}"
    model = MODELS["llava-ov-7b"]
    assert said["disk"].startswith(f"{75 * 3600 * 0.2 * 24 * model.block_bytes('native') / 1e12:.2f} TB")


def test_a_gpu_that_is_too_small_is_told() -> None:
    computed, room = MODELS["llava-ov-7b"].streams_per_gpu(1.0, 0.2, 50.0, 16.0)
    assert computed > 1 and room == 0
