"""The language model as training sees it: the same arithmetic as encoding and answering, with gradients.

sequence    prefix | N blocks of B tokens | newline, question, answer | newline, question, answer | ...
prefix      causal
blocks      each attends to the prefix, the W blocks before it and causally to itself (CacheFlow §3.2)
questions   each attends to the prefix, the blocks of its context closed up to contiguous positions (CacheFlow §3.4),
            and causally to itself; never to another question
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cacheflow_ray.core.rehydrate import rotate
from cacheflow_ray.models.rotary import Rotary


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Clips of one length with questions about them.

    Args:
        video: [n, N * B, C] token inputs.
        context: [n, S] numbers of the blocks the questions see, ascending.
        context_tokens: of the S * B tokens of a context only the first so many are seen: the last block may be a tail.
        ids: [n, Q, T] question and answer ids, padded.
        block_size: B; window_blocks: W.
    """

    video: Tensor
    context: Tensor
    context_tokens: int
    ids: Tensor
    block_size: int
    window_blocks: int

    @property
    def visible(self) -> Tensor:
        """[n, N * B] whether the questions see a token."""
        unseen = torch.zeros(self.video.shape[:2], dtype=torch.bool, device=self.video.device)
        return unseen.scatter_(1, self.seen, True)

    @property
    def seen(self) -> Tensor:
        """[n, Tc] numbers of the tokens the questions see."""
        tokens = self.context[..., None] * self.block_size + torch.arange(self.block_size, device=self.context.device)
        return tokens.flatten(1)[:, : self.context_tokens]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """What losses on attention and keys look at, of chosen layers.

    Args:
        keys: layer -> [n, H, N * B, D] of the video, un-rotated.
        mass_keys: layer -> [n, H, p + N * B, D] rotated, of prefix and video.
        mass_queries: layer -> [n, Hq, Q, T, D] rotated.
    """

    keys: dict[int, Tensor]
    mass_keys: dict[int, Tensor]
    mass_queries: dict[int, Tensor]


class Reader:
    """A text model run over batches.

    Args:
        model: a `LlavaOnevisionForConditionalGeneration`.
        prefix_ids: what stands before every video.
    """

    def __init__(self, model: Any, prefix_ids: Sequence[int]) -> None:
        self._model, self._text, self._newline = model, model.model.language_model, model.model.image_newline
        self.device = self._newline.device
        self._prefix_ids = torch.tensor(list(prefix_ids), device=self.device)
        self._rotary = Rotary(self._text.rotary_emb, self.device)
        config = self._text.config
        self._heads, self._kv_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.num_layers = len(self._text.layers)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // self._heads)

    def __call__(self, batch: Batch, trace: Sequence[int] = ()) -> tuple[Tensor, Traced]:
        """Final hidden states [n, Q, T, C] of the questions, newline left out, and what `trace` names of layers."""
        plan = _Plan(self, batch)
        hidden, traced = self._embedded(batch), Traced(keys={}, mass_keys={}, mass_queries={})
        for number, layer in enumerate(self._text.layers):
            last = number == self.num_layers - 1
            q, k, v = self._projected(layer, hidden)
            if number in trace:
                plan.trace(traced, number, q, k)
            if last:  # nobody reads what the last layer makes of the video
                out, hidden = plan.attend_questions(q, k, v), hidden[:, plan.asked]
            else:
                out = torch.cat(
                    [plan.attend_prefix(q, k, v), plan.attend_blocks(q, k, v), plan.attend_questions(q, k, v)], 2
                )
            hidden = hidden + layer.self_attn.o_proj(out.transpose(1, 2).flatten(2))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        asked = self._text.norm(hidden).unflatten(1, (batch.ids.shape[1], -1))
        return asked[:, :, 1:], traced

    def queries(self, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Of questions that see no video, as retrieval asks them: layer -> [n, Hq, Q, T, D], un-rotated.

        Args:
            ids: [n, Q, T].
        """
        n, num_questions, _ = ids.shape
        start, traced = len(self._prefix_ids) + 1, dict[int, Tensor]()
        before = torch.cat([self._text.embed_tokens(self._prefix_ids), self._newline[None]])
        asked = self._text.embed_tokens(ids.flatten(0, 1))
        hidden = torch.cat([before.to(asked.dtype).expand(len(asked), -1, -1), asked], dim=1)
        angles = self._rotary(torch.arange(hidden.shape[1], device=self.device)[None])
        for number, layer in enumerate(self._text.layers[: max(layers) + 1]):
            q, k, v = self._projected(layer, hidden)
            if number in layers:
                traced[number] = q[:, :, start:].unflatten(0, (n, num_questions)).transpose(1, 2)
            if number < max(layers):
                out = F.scaled_dot_product_attention(
                    rotate(q, *angles), rotate(k, *angles), v, is_causal=True, enable_gqa=True
                )
                hidden = hidden + layer.self_attn.o_proj(out.transpose(1, 2).flatten(2))
                hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return traced

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., C] -> [..., vocabulary]."""
        out: Tensor = self._model.lm_head(hidden)
        return out

    def _embedded(self, batch: Batch) -> Tensor:
        n, num_questions, _ = batch.ids.shape
        embed = self._text.embed_tokens
        prefix = embed(self._prefix_ids)[None].expand(n, -1, -1)
        newline = self._newline[None, None, None].expand(n, num_questions, 1, -1)
        asked = torch.cat([newline, embed(batch.ids)], dim=2).flatten(1, 2)
        return torch.cat([prefix, batch.video, asked], dim=1)

    def _projected(self, layer: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention, x = layer.self_attn, layer.input_layernorm(hidden)
        heads = (self._heads, self._kv_heads, self._kv_heads)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (
            part(x).unflatten(2, (count, -1)).transpose(1, 2) for part, count in zip(projections, heads, strict=True)
        )
        return q, k, v


def _closed(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, -torch.inf)


def _softmax(scores: Tensor) -> Tensor:
    """In float32."""
    return scores.float().softmax(-1).to(scores.dtype)


class _Plan:
    """Where everything of a batch stands: columns, masks and angles, the same in every layer."""

    def __init__(self, reader: Reader, batch: Batch) -> None:
        self._scale, self._device = reader.head_dim**-0.5, reader.device
        self._prefix = len(reader._prefix_ids)
        self._block, self._window = batch.block_size, batch.window_blocks
        num_tokens = batch.video.shape[1]
        self._num_blocks = num_tokens // self._block
        self._questions, self._length = batch.ids.shape[1], batch.ids.shape[2] + 1
        self.video = slice(self._prefix, self._prefix + num_tokens)
        self.asked = slice(self.video.stop, self.video.stop + self._questions * self._length)
        self._rotary = reader._rotary
        self._angles_of_blocks()
        self._angles_of_questions(batch)

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self._rotary(positions.reshape(1, -1))
        return cos.unflatten(0, positions.shape), sin.unflatten(0, positions.shape)

    def _angles_of_blocks(self) -> None:
        blocks = torch.arange(self._num_blocks, device=self._device)
        held = blocks[:, None] + torch.arange(-self._window, 1, device=self._device)  # [N, W + 1]
        exists = (held >= 0)[..., None].expand(-1, -1, self._block).flatten(1)
        causal = torch.ones(self._block, self._block, dtype=torch.bool, device=self._device).tril()
        own = torch.ones(self._block, self._window * self._block, dtype=torch.bool, device=self._device)
        seen = torch.cat([own, causal], dim=1)[None] & exists[:, None]
        prefix = torch.ones(self._num_blocks, self._block, self._prefix, dtype=torch.bool, device=self._device)
        self._block_mask = torch.cat([prefix, seen], dim=2)[None, None]  # [1, 1, N, B, p + (W + 1) * B]
        self._stream = self._angles(torch.arange(self._num_blocks * self._block, device=self._device) + self._prefix)
        first = held[:, :1].clamp(min=0) * self._block  # the window's first token
        self._turned_prefix = self._angles(first + torch.arange(self._prefix, device=self._device))

    def _angles_of_questions(self, batch: Batch) -> None:
        n, start = len(batch.video), self._prefix + batch.context_tokens
        places = torch.zeros(n, self._num_blocks * self._block, dtype=torch.long, device=self._device)
        places.scatter_(1, batch.seen, torch.arange(self._prefix, start, device=self._device).expand(n, -1))
        prefix = torch.arange(self._prefix, device=self._device).expand(n, -1)
        cos, sin = self._angles(torch.cat([prefix, places], dim=1))
        self._seen = cos[:, None], sin[:, None]  # [n, 1, p + N * B, R/2]
        self._own = self._angles((start + torch.arange(self._length, device=self._device)).repeat(self._questions))
        self._own_mask = torch.ones(self._length, self._length, dtype=torch.bool, device=self._device).tril()
        self._context_mask = F.pad(batch.visible, (self._prefix, 0), value=True)[:, None, None]  # [n, 1, 1, p + N * B]

    def attend_prefix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        at = slice(0, self._prefix)
        cos, sin = (part[:, :, at] for part in self._seen)
        q, k = rotate(q[:, :, at], cos, sin), rotate(k[:, :, at], cos, sin)
        return F.scaled_dot_product_attention(q, k, v[:, :, at], is_causal=True, enable_gqa=True)

    def attend_blocks(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rotated_q, rotated_k = (
            self._scale * rotate(q[:, :, self.video], *self._stream),
            rotate(k[:, :, self.video], *self._stream),
        )
        keys = torch.cat([self._prefixed(k, self._turned_prefix), *self._windows(rotated_k)], dim=3)
        values = torch.cat([self._prefixed(v, None), *self._windows(v[:, :, self.video])], dim=3)
        queries = rotated_q.unflatten(2, (self._num_blocks, self._block))  # [n, Hq, N, B, D]
        grouped = queries.unflatten(1, (keys.shape[1], -1)).transpose(2, 3).flatten(3, 4)  # [n, H, N, G * B, D]
        scores = _closed(grouped @ keys.mT, self._block_mask.repeat(1, 1, 1, q.shape[1] // k.shape[1], 1))
        out = (_softmax(scores) @ values).unflatten(3, (-1, self._block)).transpose(2, 3)
        tokens: Tensor = out.flatten(1, 2).flatten(2, 3)
        return tokens

    def _windows(self, x: Tensor) -> list[Tensor]:
        """[n, H, N * B, D] -> W + 1 times [n, H, N, B, D]: the blocks W, W-1, ... 0 before each block."""
        blocks = x.unflatten(2, (self._num_blocks, self._block))
        padded = F.pad(blocks, (0, 0, 0, 0, self._window, 0))
        return [padded[:, :, at : at + self._num_blocks] for at in range(self._window + 1)]

    def _prefixed(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        """[n, H, N, p, D]: the prefix as each block sees it."""
        prefix = x[:, :, None, : self._prefix].expand(-1, -1, self._num_blocks, -1, -1)
        return prefix if angles is None else rotate(prefix, *angles)

    def _context_keys(self, k: Tensor) -> Tensor:
        """[n, H, p + N * B, D] rotated to contiguous positions; what is not in the context is masked elsewhere."""
        return rotate(k[:, :, : self.video.stop], *self._seen)

    def attend_questions(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scores of the context and of the question's own tokens side by side, one softmax over both."""
        shape, heads = (self._questions, self._length), k.shape[1]
        queries = (self._scale * rotate(q[:, :, self.asked], *self._own)).unflatten(
            1, (heads, -1)
        )  # [n, H, G, Q * T, D]
        own_keys = rotate(k[:, :, self.asked], *self._own).unflatten(2, shape)  # [n, H, Q, T, D]
        far = _closed(queries.flatten(2, 3) @ self._context_keys(k).mT, self._context_mask)
        far = far.unflatten(2, (-1, *shape))  # [n, H, G, Q, T, p + N * B]
        near = _closed(queries.unflatten(3, shape) @ own_keys[:, :, None].mT, self._own_mask)
        weights = _softmax(torch.cat([far, near], dim=-1))
        split = self.video.stop
        out = weights[..., split:] @ v[:, :, self.asked].unflatten(2, shape)[:, :, None]
        out = out.flatten(3, 4) + (weights[..., :split].flatten(2, 4) @ v[:, :, :split]).unflatten(
            2, queries.shape[2:4]
        )
        heads_out: Tensor = out.flatten(1, 2)
        return heads_out

    def trace(self, traced: Traced, layer: int, q: Tensor, k: Tensor) -> None:
        asked = q[:, :, self.asked]
        shape = (self._questions, self._length)
        traced.keys[layer] = k[:, :, self.video]
        traced.mass_queries[layer] = rotate(asked, *self._own).unflatten(2, shape)[:, :, :, 1:]
        traced.mass_keys[layer] = self._context_keys(k)
