"""What a question is answered from: a preallocated KV cache that stored blocks are brought into and rotated in place.

columns   0 .. p | retrieved blocks | window | tail | newline, question, answer ...
          prefix |  ... in temporal order ...       | written by the ordinary model
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from cacheflow_ray.core.rehydrate import rotate, rotate_
from cacheflow_ray.models.rotary import Rotary

#: Bytes the memory of a context is aligned to, as torch aligns its own.
ALIGNMENT = 64


class Context:
    """Keys and values of one question's context, in the model's dtype and on its device.

    Args:
        shape: (L, H, capacity in tokens, D).
        rotary: of the model.

    `keys` and `values` [L, H, capacity, D] are the caller's to write un-rotated KV into, from `length` on; `turn` then
    rotates what was written.
    """

    def __init__(self, shape: tuple[int, int, int, int], rotary: Rotary, dtype: torch.dtype, device: torch.device):
        self.keys = _uninitialised(shape, dtype, device)
        self.values = _uninitialised(shape, dtype, device)
        self.length = 0
        self._rotary = rotary

    @property
    def capacity(self) -> int:
        """Tokens the context can hold."""
        return int(self.keys.shape[2])

    def check_room(self, num_tokens: int) -> None:
        """Raises: ValueError: they do not fit. A slice past the end would swallow a single token in silence."""
        if self.length + num_tokens > self.capacity:
            raise ValueError(f"a context of {self.capacity} columns cannot hold {self.length + num_tokens} tokens")

    def turn(self, positions: Tensor) -> None:
        """Rotate the next T columns, already written un-rotated, to `positions` [A, T], and count them in."""
        columns = slice(self.length, self.length + positions.shape[1])
        cos, sin = self._rotary(positions)
        rotate_(self.keys[:, :, columns], cos, sin)
        self.length = columns.stop

    def append(self, kv: Tensor, positions: Tensor) -> None:
        """Add un-rotated KV [L, 2, H, T, D] at `positions` [A, T]."""
        columns = slice(self.length, self.length + kv.shape[3])
        cos, sin = self._rotary(positions)
        self.keys[:, :, columns] = rotate(kv[:, 0], cos, sin)
        self.values[:, :, columns] = kv[:, 1]
        self.length = columns.stop

    def as_cache(self) -> Cache:
        """A transformers cache over the same memory: what the model appends lands in the free columns."""
        return Cache(
            layers=[_Layer(keys, values, self.length) for keys, values in zip(self.keys, self.values, strict=True)]
        )


def _uninitialised(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for a context. On a CPU numpy's, which asks the system for huge pages where torch does not: 64 blocks of
    0.5B dimensions then arrive in 34 ms instead of 62, for making the pages is most of the work."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return torch.from_numpy(memory[start : start + num_bytes]).view(dtype).view(shape)


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's columns; appending writes in place where DynamicCache would copy the whole context."""

    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()
        self.keys, self.values = keys[None], values[None]
        self.is_initialized = True
        self._length = length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to allocate."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start, self._length = self._length, self._length + key_states.shape[2]
        if self._length > self.keys.shape[2]:  # a slice past the end would swallow a single token in silence
            raise ValueError(f"a context of {self.keys.shape[2]} columns cannot hold {self._length} tokens")
        self.keys[:, :, start : self._length] = key_states
        self.values[:, :, start : self._length] = value_states
        return self.keys[:, :, : self._length], self.values[:, :, : self._length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length + query_length, 0

    def get_seq_length(self) -> int:
        return self._length

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])
