"""The decoder layers of a model once more, for tokens of many streams or questions end to end.

Transformers decoders compute cos and sin once, rotate q and k, and call a registered attention function. Here that is a
call of ours, which goes along with the tokens, keeps keys and values, and attends. Without angles, the layers get
cos = 1 and sin = 0: q and k arrive un-rotated. They are a second module tree that shares the parameters.

    x: [1, N, C]   linear layers run over all N tokens at once, attention runs per stream or question.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "cacheflow_position_free"


class Call(Protocol):
    """Goes through the layers with the tokens."""

    def attend(self, layer_idx: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
        """Query [Hq, N, D], key and value [H, N, D] of a layer -> [Hq, N, D]; None: nobody reads it."""


def sharing_copy(layers: nn.ModuleList) -> nn.ModuleList:
    """The layers as a module tree of their own over the same parameters, set to call `Call.attend`."""
    AttentionInterface.register(ATTENTION, _attend)
    shared = {id(tensor): tensor for tensor in (*layers.parameters(), *layers.buffers())}
    copied: nn.ModuleList = copy.deepcopy(layers, shared)
    for layer in copied:
        attention: Any = layer.self_attn
        attention.config._attn_implementation = ATTENTION
    return copied.eval()


@torch.no_grad()
def run(
    layers: Iterable[nn.Module], inputs: Tensor, call: Call, width: int, angles: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Token inputs [N, C_in] through the layers -> hidden states [N, C].

    Args:
        width: C; further channels of the inputs are added to the hidden states after the first layers, C to each.
        angles: cos and sin [N, R/2] float32, to rotate queries and keys by; they arrive in float32 then.
    """
    hidden: Tensor
    hidden, *added = inputs[None].split(width, dim=-1)
    if angles is None:
        one = hidden.new_ones((1, 1, 1))
        embeddings = (one, torch.zeros_like(one))
    else:
        cos, sin = (torch.cat((half, half), dim=-1)[None] for half in angles)
        embeddings = (cos, sin)
    for layer_idx, layer in enumerate(layers):
        out = layer(hidden, position_embeddings=embeddings, attention_mask=None, cacheflow_call=call)
        hidden = out[0] if isinstance(out, tuple) else out
        if layer_idx < len(added):
            hidden = hidden + added[layer_idx]
    return hidden[0]


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q [Hq, T, D] over k, v [H, N, D] -> [Hq, T, D]; the query heads of a group read one kv-head without a copy."""
    heads, groups = k.shape[0], q.shape[0] // k.shape[0]
    grouped = q.reshape(heads, groups, *q.shape[1:])
    k, v = (tensor[:, None].expand(-1, groups, -1, -1) for tensor in (k, v))
    return F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).reshape(q.shape)


def causal_mask(like: Tensor, length: int, before: int = 0) -> Tensor:
    """[length, before + length], to be added to scores: token t sees what is before, and tokens 0 to t."""
    mask = like.new_full((length, before + length), float("-inf"))
    return mask.triu(diagonal=before + 1)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, *, cacheflow_call: Call, **_: Any
) -> tuple[Tensor, None]:
    """The registered attention function: query [1, Hq, N, D], key and value [1, H, N, D]."""
    out = cacheflow_call.attend(int(module.layer_idx), query[0], key[0], value[0])  # type: ignore[arg-type]
    if out is None:
        return query.new_zeros((1, query.shape[2], 1, 1)), None
    return out.transpose(0, 1)[None], None  # [1, N, Hq, D]
