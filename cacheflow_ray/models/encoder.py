"""Position-free encoding: token inputs in, un-rotated keys and values of all layers out, many streams in one call.

The last layer stops after the projections, since nobody needs its output.

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
from torch import Tensor, nn

from cacheflow_ray.core.rehydrate import rotate
from cacheflow_ray.models import ragged
from cacheflow_ray.models.rotary import Rotary
from cacheflow_ray.models.window import Slot, Window

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

    def attend(self, layer_idx: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
        if layer_idx in self.queries:
            self.queries[layer_idx] = query
        self.kv[layer_idx, 0], self.kv[layer_idx, 1] = key, value
        if layer_idx == len(self.kv) - 1:  # only its keys, values and queries are wanted
            return None
        rotated, rotated_key = rotate(query, self.cos, self.sin), rotate(key, self.cos, self.sin)
        outputs = []
        for part in self.parts:
            q, k, v = (tensor[:, part.start : part.stop] for tensor in (rotated, rotated_key, value))
            outputs.append(_attend_text(q, k, v) if part.slot is None else _attend_window(part, layer_idx, q, k, v))
        return torch.cat(outputs, dim=1)


class Encoder:
    """Ragged calls for blocks, tails and text.

    Args:
        layers: by `ragged.sharing_copy`; not changed.
        config: of the text model.
        rotary: its angles.
    """

    def __init__(self, layers: nn.ModuleList, config: Any, rotary: Rotary) -> None:
        *others, last = layers
        self._layers, self._rotary, self._hidden = [*others, _cut_short(last)], rotary, int(config.hidden_size)
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
        ragged.run(self._layers, inputs, call, self._hidden)
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
        ragged.run(self._layers, inputs, call, self._hidden)
        queries = [call.queries[layer] for layer in queries_of]
        return call.kv, torch.stack(queries) if queries else inputs.new_empty(0)

    def _empty_kv(self, inputs: Tensor) -> Tensor:
        return inputs.new_empty((self.num_layers, 2, self.num_kv_heads, len(inputs), self.head_dim))


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


def _cut_short(layer: nn.Module) -> nn.Module:
    """A layer over the same parameters that computes queries, keys and values alone."""
    shared = {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())}
    short: Any = copy.deepcopy(layer, shared)
    short.self_attn.o_proj, short.mlp, short.post_attention_layernorm = _Nothing(), _Nothing(), nn.Identity()
    return short  # type: ignore[no-any-return]


class _Nothing(nn.Module):
    """Takes the place of a projection whose output nobody reads."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


def _attend_text(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ragged.grouped_attention(q, k, v, ragged.causal_mask(q, q.shape[1]))


def _attend_window(part: _Part, layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q and k rotated."""
    slot, window = part.slot, part.window
    assert slot is not None and window is not None
    keys, values = window.keys[layer_idx], window.values[layer_idx]
    keys[:, slot.start : slot.stop], values[:, slot.start : slot.stop] = k, v
    return ragged.grouped_attention(q, keys[:, : slot.total], values[:, : slot.total], slot.mask)
