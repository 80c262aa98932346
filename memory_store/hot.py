"""The hot tier: block values kept in RAM once every byte of them has been verified, the least recently used go first.

reader opens    get(key) ──hit──> value in RAM, read without a look at the memory map or its checksums
                         └─miss─> value in the memory map ──every layer verified──> keep(key, block)
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from memory_store.stored import StoredBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class HotStats:
    """Blocks asked for since the tier was made that were in it, and that were not; and what it holds now."""

    hits: int = 0
    misses: int = 0
    num_blocks: int = 0
    num_bytes: int = 0

    @classmethod
    def sum(cls, parts: Iterable[HotStats]) -> HotStats:
        return cls(**dict(sum((Counter(asdict(part)) for part in parts), Counter())))


class HotBlocks:
    """Thread-safe. Keys are a stream's number, which is never given twice, and a block's."""

    def __init__(self, capacity_bytes: int) -> None:
        """Args: capacity_bytes: of block values; 0 keeps none."""
        self.capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], StoredBlock] = OrderedDict()  # the least recently used first
        self._deleted: set[int] = set()
        self._num_bytes = 0
        self._hits = self._misses = 0

    def get(self, number: int, block_idx: int) -> StoredBlock | None:
        """The block, whose value stays valid for as long as it is held."""
        with self._lock:
            found = self._blocks.get((number, block_idx))
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
                self._blocks.move_to_end((number, block_idx))
            return found

    def keep(self, number: int, block: StoredBlock) -> None:
        """Copy a verified block in, unless it is larger than the whole tier or its stream was deleted meanwhile."""
        assert block.verified, "only what was verified is kept"
        key = number, block.header.block_idx
        with self._lock:
            if key in self._blocks or number in self._deleted or block.value.nbytes > self.capacity_bytes:
                return
        copied = StoredBlock(block.header, memoryview(bytes(block.value)), verified=True)
        with self._lock:
            if key in self._blocks or number in self._deleted:
                return
            self._blocks[key] = copied
            self._num_bytes += copied.value.nbytes
            while self._num_bytes > self.capacity_bytes:
                self._num_bytes -= self._blocks.popitem(last=False)[1].value.nbytes

    def drop(self, number: int) -> None:
        """Forget a deleted stream for good: a read still under way cannot bring it back."""
        with self._lock:
            self._deleted.add(number)
            for key in [key for key in self._blocks if key[0] == number]:
                self._num_bytes -= self._blocks.pop(key).value.nbytes

    def stats(self) -> HotStats:
        with self._lock:
            return HotStats(
                hits=self._hits, misses=self._misses, num_blocks=len(self._blocks), num_bytes=self._num_bytes
            )
