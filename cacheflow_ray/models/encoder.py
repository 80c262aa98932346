"""Position-free encoding: token inputs in, un-rotated keys and values of all layers out, many streams in one call.

Transformers decoders compute cos and sin once, rotate q and k, and call a registered attention function. Here they get
cos = 1 and sin = 0, so q and k arrive un-rotated at a function of ours that hands k and v out, rotates, and attends to
the stream's window. The decoder layers are a second module tree that shares the model's parameters; its last layer
stops after the projections, since nobody needs its output.

    one call   x: [1, N, C] = segments of several streams end to end: linear layers run over all N tokens at once,
               attention runs per segment over that stream's window.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from cacheflow_ray.core.rehydrate import rotate
from cacheflow_ray.models.rotary import Rotary
from cacheflow_ray.models.window import Slot, Window

ATTENTION = "cacheflow_position_free"


#: Tokens a CPU takes at a time, at least one segment: a small batch shares the reading of weights, beyond this many the
#: activations of one layer outgrow the core's cache and nothing is left to share. An accelerator takes all at once.
CPU_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A full block, or a stream's tail, with the window it attends to.

    Args:
        inputs: [T, C_in] token inputs in the model's dtype: embeddings, then DeepStack inputs where there are any.
        tokens: [T] of TOKEN_DTYPE.
        block_idx: number of the block (for a tail: of the block it will become).
        window: of the stream; a full block stays in it, a tail does not.
    """

    inputs: Tensor
    tokens: npt.NDArray[Any]
    block_idx: int
    window: Window


@dataclass(slots=True)
class _Part:
    """A segment on its way through the layers: columns [start, stop) of the call."""

    start: int
    stop: int
    slot: Slot | None = None
    window: Window | None = None


@dataclass(slots=True)
class _Call:
    parts: list[_Part]
    kv: Tensor  # [L, 2, H, N, D], filled layer by layer
    cos: Tensor  # [N, R/2]
    sin: Tensor
    queries: dict[int, Tensor] = field(default_factory=dict)  # layer -> [Hq, N, D], wanted layers only


class Encoder:
    """The second module tree and the ragged call over it.

    Args:
        text_model: the decoder of a loaded transformers model (`layers`, `rotary_emb`, `config`); not changed.
        rotary: its angles.
        num_deepstack: inputs added to the hidden states after each of the first layers (Qwen3-VL), else 0.
    """

    def __init__(self, text_model: Any, rotary: Rotary, *, num_deepstack: int = 0) -> None:
        AttentionInterface.register(ATTENTION, _attend)
        self._layers = _sharing_copy(text_model.layers)
        last: Any = self._layers[-1]
        last.self_attn.o_proj, last.mlp, last.post_attention_layernorm = _Nothing(), _Nothing(), nn.Identity()
        config = text_model.config
        self._rotary, self._num_deepstack = rotary, num_deepstack
        self._hidden = int(config.hidden_size)
        self.num_layers = len(self._layers)
        self.num_heads = int(config.num_attention_heads)
        self.num_kv_heads = int(config.num_key_value_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

    def encode(self, segments: Sequence[Segment]) -> list[Tensor]:
        """KV of each segment, [L, 2, H, T, D] un-rotated, its own to keep.

        Keys and values of full blocks are in their windows afterwards. CacheFlow §3.2; METHOD: block j's KV depends on
        its own tokens, the prefix and blocks j-W..j-1 only, whatever else is in the call.

        Raises:
            ValueError: two segments of one window, or a block that is missing in one.
        """
        if len({id(segment.window) for segment in segments}) < len(segments):
            raise ValueError("one call encodes one block of a stream: two segments share a window")
        return [kv for call in _calls(segments) for kv in self._encode_call(call)]

    def _encode_call(self, segments: Sequence[Segment]) -> list[Tensor]:
        parts, start = [], 0
        for segment in segments:
            stop = start + len(segment.inputs)
            slot = segment.window.open(segment.block_idx, segment.tokens)
            parts.append(_Part(start=start, stop=stop, slot=slot, window=segment.window))
            start = stop
        slots = [part.slot for part in parts if part.slot]
        inputs = torch.cat([segment.inputs for segment in segments])
        cos, sin = torch.cat([slot.cos for slot in slots]), torch.cat([slot.sin for slot in slots])
        call = _Call(parts, self._empty_kv(inputs), cos, sin)
        self._run(inputs, call)
        for segment in segments:
            if len(segment.tokens) == segment.window.block_size:
                segment.window.close(segment.block_idx, segment.tokens)
        return [call.kv] if len(parts) == 1 else [call.kv[..., part.start : part.stop, :].clone() for part in parts]

    def encode_text(self, inputs: Tensor, *, queries_of: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Plain causal text from position 0 on: the prefix, or prefix and question.

        Args:
            inputs: [T, C_in].
            queries_of: layers whose queries are wanted.

        Returns:
            KV [L, 2, H, T, D] un-rotated, and queries [len(queries_of), Hq, T, D] un-rotated.
        """
        cos, sin = self._rotary(torch.arange(len(inputs))[None])
        wanted = dict.fromkeys(queries_of, inputs.new_empty(0))
        call = _Call([_Part(start=0, stop=len(inputs))], self._empty_kv(inputs), cos, sin, wanted)
        self._run(inputs, call)
        queries = [call.queries[layer] for layer in queries_of]
        return call.kv, torch.stack(queries) if queries else inputs.new_empty(0)

    def _empty_kv(self, inputs: Tensor) -> Tensor:
        return inputs.new_empty((self.num_layers, 2, self.num_kv_heads, len(inputs), self.head_dim))

    @torch.no_grad()
    def _run(self, inputs: Tensor, call: _Call) -> None:
        hidden = inputs[None, :, : self._hidden]
        deepstack = inputs[None, :, self._hidden :].split(self._hidden, dim=-1) if self._num_deepstack else ()
        one = hidden.new_ones((1, 1, 1))
        unrotated = (one, torch.zeros_like(one))
        for layer_idx, layer in enumerate(self._layers):
            out = layer(hidden, position_embeddings=unrotated, attention_mask=None, cacheflow_call=call)
            hidden = out[0] if isinstance(out, tuple) else out
            if layer_idx < len(deepstack):
                hidden = hidden + deepstack[layer_idx]


def _calls(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Segments as they go through the layers together."""
    call: list[Segment] = []
    for segment in segments:
        num_tokens = sum(len(other.inputs) for other in call) + len(segment.inputs)
        if call and segment.inputs.device.type == "cpu" and num_tokens > CPU_TOKENS:
            yield call
            call = []
        call.append(segment)
    if call:
        yield call


def _sharing_copy(layers: nn.ModuleList) -> nn.ModuleList:
    """The layers as a module tree of their own over the same parameters, set to our attention function."""
    shared = {id(tensor): tensor for tensor in (*layers.parameters(), *layers.buffers())}
    copied: nn.ModuleList = copy.deepcopy(layers, shared)
    for layer in copied:
        attention: Any = layer.self_attn
        attention.config._attn_implementation = ATTENTION
    return copied.eval()


class _Nothing(nn.Module):
    """Takes the place of a projection whose output nobody reads."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, *, cacheflow_call: _Call, **_: Any
) -> tuple[Tensor, None]:
    """The registered attention function: query [1, Hq, N, D], key and value [1, H, N, D], all un-rotated."""
    layer_idx, call = int(module.layer_idx), cacheflow_call  # type: ignore[arg-type]
    if layer_idx in call.queries:
        call.queries[layer_idx] = query[0]
    call.kv[layer_idx, 0], call.kv[layer_idx, 1] = key[0], value[0]
    if layer_idx == len(call.kv) - 1:  # only its keys, values and queries are wanted
        return query.new_zeros((1, query.shape[2], 1, 1)), None
    rotated, rotated_key = rotate(query[0], call.cos, call.sin), rotate(key[0], call.cos, call.sin)
    outputs = []
    for part in call.parts:
        q, k, v = (tensor[:, part.start : part.stop] for tensor in (rotated, rotated_key, value[0]))
        outputs.append(_attend_text(q, k, v) if part.slot is None else _attend_window(part, layer_idx, q, k, v))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None], None  # [1, N, Hq, D]


def _attend_text(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = q.new_full((q.shape[1], q.shape[1]), float("-inf")).triu(diagonal=1)
    return _grouped_attention(q, k, v, mask)


def _attend_window(part: _Part, layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q and k rotated."""
    slot, window = part.slot, part.window
    assert slot is not None and window is not None
    keys, values = window.keys[layer_idx], window.values[layer_idx]
    keys[:, slot.start : slot.stop], values[:, slot.start : slot.stop] = k, v
    return _grouped_attention(q, keys[:, : slot.total], values[:, : slot.total], slot.mask)


def _grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q [Hq, T, D] over k, v [H, N, D] -> [Hq, T, D]; the query heads of a group read one kv-head without a copy."""
    heads, groups = k.shape[0], q.shape[0] // k.shape[0]
    grouped = q.reshape(heads, groups, *q.shape[1:])
    k, v = (tensor[:, None].expand(-1, groups, -1, -1) for tensor in (k, v))
    return F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).reshape(q.shape)
