"""Reading what follows the video and the answer's own tokens, of many questions in one call.

one call   x: [1, N, C] = what each question has to read next, end to end: its words at first, then one token at a
           time. Linear layers read the weights once for all of them; attention runs per question over its context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cacheflow_ray.models import ragged
from cacheflow_ray.models.context import Context
from cacheflow_ray.models.rotary import Rotary


@dataclass(slots=True, kw_only=True, eq=False)
class Reading:
    """What is to be read behind a context.

    Args:
        context: filled, with free columns for what is read.
        inputs: [T, C] token inputs in the model's dtype.
        position: of the first of them.
    """

    context: Context
    inputs: Tensor
    position: int


class Decoder:
    """Ragged calls for questions.

    Args:
        layers: by `ragged.sharing_copy`; not changed.
        norm, head: hidden states [n, C] -> logits [n, V] of the model.
        rotary: its angles.
    """

    def __init__(self, layers: nn.ModuleList, norm: Any, head: Any, rotary: Rotary) -> None:
        self._layers, self._norm, self._head, self._rotary = layers, norm, head, rotary

    @property
    def weight_bytes(self) -> int:
        """What every call reads of the model."""
        return sum(one.nbytes for part in (self._layers, self._norm, self._head) for one in part.parameters())

    @torch.no_grad()
    def read(self, readings: Sequence[Reading]) -> Tensor:
        """Logits after the last input of each, float32 [n, V]; the inputs are in the contexts then, and counted in.

        Raises:
            ValueError: a context has too few columns left; nothing was read.
        """
        parts, start = [], 0
        for reading in readings:
            length, stop = len(reading.inputs), start + len(reading.inputs)
            parts.append(_Part(start=start, stop=stop, context=reading.context, mask=_mask(reading)))
            reading.context.check_room(length)
            start = stop
        positions = [torch.arange(reading.position, reading.position + len(reading.inputs)) for reading in readings]
        inputs = torch.cat([reading.inputs for reading in readings])
        angles = self._rotary(torch.cat(positions)[None])
        hidden = ragged.run(self._layers, inputs, _Call(parts), inputs.shape[1], angles)
        logits: Tensor = self._head(self._norm(hidden[[part.stop - 1 for part in parts]]))
        for part in parts:
            part.context.length += part.stop - part.start
        return logits.float()


@dataclass(slots=True)
class _Part:
    """A question on its way through the layers: columns [start, stop) of the call."""

    start: int
    stop: int
    context: Context
    mask: Tensor | None  # None: one token, which sees everything


@dataclass(slots=True)
class _Call:
    parts: list[_Part]

    def attend(self, layer_idx: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key = query.to(value.dtype), key.to(value.dtype)  # rotated
        outputs = []
        for part in self.parts:
            own = slice(part.start, part.stop)
            before = part.context.length
            after = before + part.stop - part.start
            keys, values = part.context.keys[layer_idx, :, :after], part.context.values[layer_idx, :, :after]
            keys[:, before:], values[:, before:] = key[:, own], value[:, own]
            if part.mask is None:
                outputs.append(_attend_one(query[:, own], keys, values))
            else:
                outputs.append(ragged.grouped_attention(query[:, own], keys, values, part.mask))
        return torch.cat(outputs, dim=1)


def _mask(reading: Reading) -> Tensor | None:
    if len(reading.inputs) == 1:
        return None
    return ragged.causal_mask(reading.inputs, len(reading.inputs), before=reading.context.length)


def _attend_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [Hq, 1, D] over k, v [H, N, D] -> [Hq, 1, D]: the heads of a group are rows of one product, so that a context
    is read once."""
    return F.scaled_dot_product_attention(q.reshape(1, len(k), -1, q.shape[2]), k[None], v[None]).reshape(q.shape)
