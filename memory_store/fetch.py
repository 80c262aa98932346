"""Reading blocks' KV out of the memory map: copy a piece, and verify it while it is still in the core's cache.

Copying first is the faster order: memory is then read and written at the same time, and hashing costs next to nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np

from memory_store.blobs import Snapshot
from memory_store.codec import BlockHeader, KvLayout, layer_bytes, verify_layers
from memory_store.errors import InvalidRecord, StoreUnavailable
from memory_store.records import Array

#: Bytes copied and then verified at a time: few enough to stay in a core's second-level cache between the two, many
#: enough that threads reading together seldom meet at the interpreter's lock. Less suits one thread, more suits two.
_PIECE_BYTES = 600 << 10


class _Stored:
    """One block in the memory map. layers: uint8 [L, bytes of a layer]; kv: the same as raw [L, 2, H, B, D]."""

    def __init__(self, header: BlockHeader, value: memoryview, raw: np.dtype[Any]) -> None:
        self.header = header
        self.layers = layer_bytes(header, value)
        self.kv: Array = self.layers.view(raw).reshape(header.layout.shape)


class BlockReader:
    """Zero-copy view of some blocks, for as long as a short reading transaction lasts. Close it soon or use `with`.

    Attributes:
        tokens: one [B] array of TOKEN_DTYPE per block, owned.
        shape, dtype: of one block's KV, [L, 2, H, B, D].
    """

    def __init__(
        self,
        snapshot: Snapshot,
        layout: KvLayout,
        found: Sequence[tuple[BlockHeader, memoryview]],
        threads: int,
    ) -> None:
        """Args: found: each block's decoded header and its value within `snapshot`, which the reader will close."""
        self.tokens: list[Array] = [header.tokens for header, _ in found]
        self.shape = layout.shape
        self.dtype: np.dtype[Any] = layout.dtype
        self._snapshot = snapshot
        self._raw = np.dtype(f"u{layout.dtype.itemsize}")
        self._blocks = [_Stored(header, value, self._raw) for header, value in found]
        self._piece = max(1, _PIECE_BYTES // layout.layer_bytes)
        self._threads = max(1, min(threads, len(found)))
        self._pool: ThreadPoolExecutor | None = None
        self._state = threading.Condition()
        self._reading = 0
        self._closed = False

    def read(self, layers: range, keys_out: Array, values_out: Array) -> int:
        """Copy the keys and values of `layers` out, every byte verified; threads may read into disjoint arrays at once.

        Args:
            layers: consecutive layer numbers.
            keys_out, values_out: [len(layers), H, K * B, D] of the KV dtype (or unsigned integers as wide), any
                strides but the last axis contiguous. Block i of the K asked for fills tokens i * B .. (i + 1) * B.

        Returns:
            The number of bytes read.

        Raises:
            CorruptRecord: a checksum differs; what was written to the arrays by then must not be used.
            InvalidRecord: the arrays or layers do not fit. StoreUnavailable: closed.
        """
        self._enter()
        try:
            keys, values = (self._checked(out, layers) for out in (keys_out, values_out))
            todo = iter(range(len(self._blocks)))  # shared: a thread takes its next block when it is done with one
            others = [self._workers().submit(self._copy, todo, layers, keys, values) for _ in range(self._threads - 1)]
            try:
                self._copy(todo, layers, keys, values)
            finally:
                errors = [other.exception() for other in others]
            for error in filter(None, errors):
                raise error
            return keys.nbytes + values.nbytes
        finally:
            self._leave()

    def _copy(self, blocks: Iterator[int], layers: range, keys: Array, values: Array) -> None:
        num_tokens, base = self.shape[3], layers.start
        for block in blocks:
            stored, columns = self._blocks[block], slice(block * num_tokens, (block + 1) * num_tokens)
            for first in range(base, layers.stop, self._piece):
                last = min(first + self._piece, layers.stop)
                np.copyto(keys[first - base : last - base, :, columns], stored.kv[first:last, 0])
                np.copyto(values[first - base : last - base, :, columns], stored.kv[first:last, 1])
                verify_layers(stored.header, stored.layers[first:last], first)

    def _checked(self, out: Array, layers: range) -> Array:
        """`out` as unsigned integers, which numpy copies faster than bfloat16."""
        num_layers, _, heads, num_tokens, head_dim = self.shape
        if layers.step != 1 or not 0 <= layers.start <= layers.stop <= num_layers:
            raise InvalidRecord(f"{layers} are not consecutive layers of 0..{num_layers - 1}")
        expected = (len(layers), heads, len(self._blocks) * num_tokens, head_dim)
        if out.shape != expected or out.dtype not in (self.dtype, self._raw):
            raise InvalidRecord(f"cannot read {self.dtype} KV {expected} into {out.dtype} {out.shape}")
        if out.size and head_dim > 1 and out.strides[-1] != out.itemsize:
            raise InvalidRecord("the last axis of an array to read into must be contiguous")
        return out.view(self._raw)

    def _workers(self) -> ThreadPoolExecutor:
        with self._state:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads - 1, thread_name_prefix="block-reader")
            return self._pool

    def _enter(self) -> None:
        with self._state:
            if self._closed:
                raise StoreUnavailable("the block reader is closed: ask the store for another")
            self._reading += 1

    def _leave(self) -> None:
        with self._state:
            self._reading -= 1
            self._state.notify_all()

    def close(self) -> None:
        """Wait for reads under way and end the transaction. Closing again does nothing."""
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: not self._reading)
            pool, self._pool = self._pool, None
        if pool:
            pool.shutdown()
        self._blocks = []
        self._snapshot.close()

    def __enter__(self) -> BlockReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
