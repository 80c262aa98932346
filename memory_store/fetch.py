"""Reading blocks' KV: a short transaction over the memory map, and threads that share the blocks of one read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np

from memory_store.blobs import Snapshot
from memory_store.codec import KvLayout
from memory_store.errors import CorruptRecord, InvalidRecord, StoreUnavailable
from memory_store.records import Array
from memory_store.stored import StoredBlock


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
        found: Sequence[StoredBlock],
        threads: int,
        keep: Callable[[StoredBlock], None] | None = None,
        spoilt: Callable[[int], None] | None = None,
    ) -> None:
        """
        Args:
            found: the blocks, within `snapshot` or on their own; the reader will close the snapshot.
            keep: told of every block found within the snapshot, once all of it has been verified.
            spoilt: told of every block that failed, once the reader is closed.
        """
        self.tokens: list[Array] = [block.header.tokens.copy() for block in found]
        self.shape = layout.shape
        self.dtype: np.dtype[Any] = layout.dtype
        self._snapshot = snapshot
        self._raw = np.dtype(f"u{layout.dtype.itemsize}")
        self._blocks = list(found)
        self._keep, self._spoilt = keep, spoilt
        self._failed: set[int] = set()
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
            The number of bytes written to the arrays.

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
        num_tokens = self.shape[3]
        for block in blocks:
            stored, columns = self._blocks[block], slice(block * num_tokens, (block + 1) * num_tokens)
            fresh = not stored.verified
            try:
                stored.read(layers, keys[:, :, columns], values[:, :, columns])
            except CorruptRecord:
                self._failed.add(stored.header.block_idx)
                raise
            if self._keep and fresh and stored.verified:
                self._keep(stored)

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
        while self._failed and self._spoilt:
            self._spoilt(self._failed.pop())

    def __enter__(self) -> BlockReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
