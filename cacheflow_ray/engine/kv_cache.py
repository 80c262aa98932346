"""Re-encoded KV kept in memory for the next question; it is never written to the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from torch import Tensor

from cacheflow_ray.engine.sources import Access

#: Stream, when it was made, block, warm-up: a stream made anew under the same name is another.
Key = tuple[str, float, int, int]

DEFAULT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """KV [L, 2, H, B, D] of one block, un-rotated.

    Args:
        exact: as it was, up to rounding.
        looks_other: the source's pictures differ a little from what they were.
    """

    kv: Tensor
    exact: bool
    looks_other: bool


class KvCache:
    """Of blocks used lately, on the CPU, up to a number of bytes. Thread-safe."""

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._blocks: OrderedDict[Key, Made] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Made | None:
        with self._lock:
            made = self._blocks.get(key)
            if made is not None:
                self._blocks.move_to_end(key)
            return made

    def put(self, key: Key, made: Made) -> None:
        made = replace(made, kv=made.kv.cpu())
        with self._lock:
            before = self._blocks.pop(key, None)
            self._num_bytes += made.kv.nbytes - (before.kv.nbytes if before else 0)
            self._blocks[key] = made
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._blocks.popitem(last=False)[1].kv.nbytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Again:
    """How KV that was dropped is had again: which sources may be read, and what was made of them lately."""

    access: Access = field(default_factory=Access)
    cache: KvCache = field(default_factory=KvCache)
