"""Training's forward pass is the product's arithmetic: encoding under a window, a question over chosen blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cacheflow_ray.models import Segment, Turn, VideoModel
from cacheflow_ray.models.llava_onevision import llava_onevision
from cacheflow_ray.models.word_llava import Sizes, build_word_llava
from cacheflow_ray.training.forward import Batch, Reader
from cacheflow_ray.types import TOKEN_DTYPE
from cacheflow_ray.world import vocabulary

B, W, N = 16, 2, 6
QUESTIONS = ("what color was the star", "where was the red star")


@pytest.fixture(scope="module")
def model() -> VideoModel:
    loaded = build_word_llava(vocabulary(), Sizes(layers=3), seed=0)
    for weight in loaded.model.parameters():  # sharper attention than fresh weights have, or the test would be blind
        if weight.ndim >= 2:
            weight.data.mul_(6)
    return VideoModel("words", loaded, llava_onevision(loaded))


def stored(model: VideoModel, video: Tensor) -> list[Tensor]:
    """KV of each block, as the engine encodes it."""
    tokens = np.zeros(N * B, TOKEN_DTYPE)
    tokens["pos"] = np.arange(N * B)
    window = model.window(model.positions(1.0), num_blocks=W, block_size=B)
    kv = []
    for block_idx in range(N):
        own = slice(block_idx * B, (block_idx + 1) * B)
        kv += model.encoder.encode([Segment(inputs=video[own], tokens=tokens[own], block_idx=block_idx, window=window)])
    return kv


def product_logits(model: VideoModel, kv: Tensor, ids: tuple[int, ...]) -> Tensor:
    context = model.context(model.prefix.length + kv.shape[3] + 32)
    start = context.length
    context.append(kv, torch.arange(start, start + kv.shape[3])[None])
    hf = model._loaded.model
    inputs = torch.cat([hf.model.image_newline[None], model.embed(ids)])[None]
    positions = torch.arange(context.length, context.length + inputs.shape[1])[None]
    with torch.no_grad():
        out = hf.model.language_model(inputs_embeds=inputs, past_key_values=context.as_cache(), position_ids=positions)
        logits: Tensor = hf.lm_head(out.last_hidden_state[0, 1:])
    return logits


@pytest.mark.parametrize(("context", "cut"), [((1, 3, 5), 5), ((0, 1, 2, 3, 4, 5), 0)])
def test_logits_are_those_of_the_stored_and_rehydrated_blocks(
    model: VideoModel, context: tuple[int, ...], cut: int
) -> None:
    video = torch.randn(1, N * B, 128, generator=torch.Generator().manual_seed(0)) / 2
    suffixes = [model.prompt.suffix([Turn(question=text)]).ids for text in QUESTIONS]
    assert len({len(ids) for ids in suffixes}) == 1
    batch = Batch(
        video=video,
        context=torch.tensor([context]),
        context_tokens=len(context) * B - cut,
        ids=torch.tensor([suffixes]),
        block_size=B,
        window_blocks=W,
    )
    reader = Reader(model._loaded.model, model.prompt.prefix_ids)
    with torch.no_grad():
        logits = reader.logits(reader(batch)[0])
    blocks = stored(model, video[0])
    kv = torch.cat([blocks[block] for block in context], dim=3)[:, :, :, : len(context) * B - cut]
    for number, ids in enumerate(suffixes):
        expected = product_logits(model, kv, ids)
        assert expected.abs().max() > 1
        torch.testing.assert_close(logits[0, number], expected, atol=5e-5, rtol=0)
