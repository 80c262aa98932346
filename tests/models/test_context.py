"""The preallocated cache behaves as the library's own growing one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from cacheflow_ray.models import VideoModel
from tests.models.streams import FPS, GRID, Reference, make_stream
from tests.oracles import distance


def positions_after(model: VideoModel, start: int, length: int) -> Tensor:
    row = torch.arange(start, start + length)[None]
    axes = model.positions(FPS).num_axes
    return row if axes == 1 else row.expand(axes, -1)[:, None]


def test_context_is_the_prefix_and_what_was_rotated_in(model: VideoModel) -> None:
    """Appended and turned in place: both equal the module's own rotation."""
    stream, reference = make_stream(model, 2), Reference(model)
    kv = torch.randn((*model.prefix.kv.shape[:3], 20, model.prefix.kv.shape[4]))
    at, _ = model.positions(FPS).context(stream.tokens[:20], model.prefix.length, GRID)
    appended, turned = model.context(60), model.context(60)
    appended.append(kv, at)
    columns = slice(turned.length, turned.length + 20)
    turned.keys[:, :, columns], turned.values[:, :, columns] = kv[:, 0], kv[:, 1]
    turned.turn(at)
    prefix_at = torch.arange(model.prefix.length).expand(len(at), -1)
    wanted = torch.cat([reference.rotated(model.prefix.kv[:, 0], prefix_at), reference.rotated(kv[:, 0], at)], dim=2)
    for context in (appended, turned):
        assert context.length == model.prefix.length + 20
        assert distance(context.keys[:, :, : context.length], wanted) < 1e-5
        assert torch.equal(context.values[:, :, columns], kv[:, 1])
    assert torch.equal(appended.keys[:, :, : appended.length], turned.keys[:, :, : turned.length])


def test_model_over_the_preallocated_cache_equals_dynamic_cache(model: VideoModel) -> None:
    """Four tokens at once, then one at a time, to the last column."""
    length, ids = model.prefix.length, [5, 6, 7, 8, 9, 10]
    context = model.context(length + len(ids))
    ours, theirs = context.as_cache(), DynamicCache()
    for layer in range(len(context.keys)):
        theirs.update(context.keys[None, layer, :, :length], context.values[None, layer, :, :length], layer)
    for start, stop in ((0, 4), (4, 5), (5, 6)):
        inputs = {
            "inputs_embeds": model._parts.text_model.embed_tokens(torch.tensor([ids[start:stop]])),
            "position_ids": positions_after(model, length + start, stop - start),
        }
        with torch.no_grad():
            found, wanted = (
                model._parts.text_model(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
                for cache in (ours, theirs)
            )
        assert distance(found, wanted) < 1e-6
        assert ours.get_seq_length() == theirs.get_seq_length() == length + stop
    for layer, grown in enumerate(theirs.layers):
        assert distance(context.keys[None, layer], grown.keys) < 1e-6
        assert distance(context.values[None, layer], grown.values) < 1e-6


def test_a_full_context_refuses_another_token(model: VideoModel) -> None:
    context = model.context(model.prefix.length)
    layer = context.as_cache().layers[0]
    token = torch.zeros((1, *context.keys.shape[1:2], 1, context.keys.shape[3]))
    with pytest.raises(ValueError, match=f"{context.capacity} columns cannot hold {context.capacity + 1} tokens"):
        layer.update(token, token)
