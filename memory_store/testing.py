"""A store in memory, for tests of what uses one: the same surface as `Store`, in dicts and plain numpy.

Its search is the brute-force reference the FAISS one is held against. One conformance suite runs on both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from memory_store import committing, sessions
from memory_store.catalog import check_block_idxs, plain_record, stream_not_found
from memory_store.codec import KvLayout
from memory_store.durability import Durability
from memory_store.errors import BlockNotFound, FingerprintMismatch, InvalidRecord, StoreUnavailable
from memory_store.hot import HotStats
from memory_store.index import best_hits, check_queries
from memory_store.records import (
    Array,
    Block,
    Commit,
    Hit,
    Retention,
    StreamRecord,
    StreamState,
    StreamStats,
    TimeRange,
)
from memory_store.store import MAP_SIZE
from memory_store.testing_library import MemoryLibrary
from memory_store.values import SummaryHeader


@dataclass(slots=True, kw_only=True)
class _Stream:
    record: StreamRecord
    blocks: list[Block] = field(default_factory=list)
    state: StreamState | None = None
    stats: StreamStats = field(default_factory=lambda: StreamStats(num_blocks=0, num_tokens=0, num_bytes=0))


class MemoryBlockReader:
    """`BlockReader` over blocks in memory."""

    def __init__(self, blocks: Sequence[Block], layout: KvLayout) -> None:
        self.tokens: list[Array] = [block.tokens.copy() for block in blocks]
        self.shape = layout.shape
        self.dtype: np.dtype[Any] = layout.dtype
        self._blocks = blocks
        self._closed = False

    def read(self, layers: range, keys_out: Array, values_out: Array) -> int:
        if self._closed:
            raise StoreUnavailable("the block reader is closed: ask the store for another")
        num_layers, _, heads, num_tokens, head_dim = self.shape
        if layers.step != 1 or not 0 <= layers.start <= layers.stop <= num_layers:
            raise InvalidRecord(f"{layers} are not consecutive layers of 0..{num_layers - 1}")
        for part, out in enumerate((keys_out, values_out)):
            expected = (len(layers), heads, len(self._blocks) * num_tokens, head_dim)
            if out.shape != expected or out.dtype not in (self.dtype, np.dtype(f"u{self.dtype.itemsize}")):
                raise InvalidRecord(f"cannot read {self.dtype} KV {expected} into {out.dtype} {out.shape}")
            if out.size and head_dim > 1 and out.strides[-1] != out.itemsize:
                raise InvalidRecord("the last axis of an array to read into must be contiguous")
            for at, block in enumerate(self._blocks):
                kv = block.kv[layers.start : layers.stop, part]
                out[:, :, at * num_tokens : (at + 1) * num_tokens] = kv.view(out.dtype)
        return keys_out.nbytes + values_out.nbytes

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> MemoryBlockReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class MemoryStore:
    """In-memory double of `Store`; what its methods do and raise is written there. `open` always gives an empty one.

    KV stays as it came, whatever the stream's codec.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._streams: dict[str, _Stream] = {}
        self._turns: dict[str, tuple[float, bytes]] = {}
        self._clock = clock
        self._closed = False
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        read_only: bool = False,
        shards: int | None = None,
        durability: Durability = Durability.POWER_SAFE,
        accept_unsynced: bool = False,
        map_size: int = MAP_SIZE,
        hot_bytes: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> MemoryStore:
        return cls(clock=clock)

    def create_stream(self, record: StreamRecord) -> StreamRecord:
        plain = plain_record(record)
        with self._open():
            stream = self._streams.setdefault(plain.stream_id, _Stream(record=plain))
            committing.check_same_stream(plain, stream.record)
            return stream.record

    def get_stream(self, stream_id: str) -> StreamRecord:
        return self._stream(stream_id).record

    def list_streams(self) -> list[StreamRecord]:
        with self._open():
            return [self._streams[name].record for name in sorted(self._streams)]

    def relabel(self, stream_id: str, labels: Mapping[str, str]) -> StreamRecord:
        with self._open():
            stream = self._stream(stream_id)
            stream.record = plain_record(replace(stream.record, labels=dict(labels)))
            return stream.record

    def set_retention(self, stream_id: str, policy: Retention) -> None:
        self._stream(stream_id)
        if policy != Retention():
            raise InvalidRecord("a store in memory keeps everything: use one on disk for limits", stream_id=stream_id)

    def claim(self, stream_id: str) -> int:
        with self._open():
            stream = self._stream(stream_id)
            state = stream.state or StreamState(epoch=0, num_blocks=0, payload=b"")
            stream.state = replace(state, epoch=state.epoch + 1)
            return stream.state.epoch

    def delete_stream(self, stream_id: str) -> None:
        with self._open():
            self._stream(stream_id)
            del self._streams[stream_id]
            self._turns = {name: turns for name, turns in self._turns.items() if not name.startswith(f"{stream_id}/")}

    def commit(self, commits: Sequence[Commit]) -> None:
        with self._open():
            before = {
                commit.stream_id: _copy(self._stream(commit.stream_id)) for commit in commits
            }  # put back when a later commit of the same transaction fails
            try:
                for commit in commits:
                    self._apply(commit)
            except BaseException:
                self._streams.update(before)
                raise

    def _apply(self, commit: Commit) -> None:
        stream = self._stream(commit.stream_id)
        committing.check_epoch(commit, stream.state)
        for block in commit.blocks:
            committing.check_place(commit, block, len(stream.blocks))
            if block.block_idx < len(stream.blocks):
                committing.check_same_tokens(block, stream.blocks[block.block_idx].tokens)
                continue
            first = stream.blocks[0] if stream.blocks else None
            like = (KvLayout.of(first.kv), first.summary.shape) if first else None
            committing.check_like_others(block, like, stream.stats)
            start_s, end_s = committing.span(block)
            num_bytes = block.kv.nbytes + block.tokens.nbytes + block.summary.nbytes + len(block.thumbnail or b"")
            totals = SummaryHeader(start_s=start_s, end_s=end_s, num_tokens=len(block.tokens), num_bytes=num_bytes)
            stream.stats = committing.extended(stream.stats, totals)
            stream.blocks.append(_owned(block))
        committing.check_count(commit, len(stream.blocks))
        stream.state = commit.state

    def load_state(self, stream_id: str) -> StreamState | None:
        return self._stream(stream_id).state

    def stats(self, stream_id: str) -> StreamStats:
        return self._stream(stream_id).stats

    def times(self, stream_id: str) -> Array:
        blocks = self._stream(stream_id).blocks
        return np.array([committing.span(block) for block in blocks], np.float64).reshape(len(blocks), 2)

    def blocks_in(self, stream_id: str, time_range: TimeRange) -> range:
        times = self.times(stream_id)
        inside = np.flatnonzero((times[:, 1] >= time_range.start_s) & (times[:, 0] <= time_range.end_s))
        return range(int(inside[0]), int(inside[-1]) + 1) if len(inside) else range(0)

    def read_tokens(self, stream_id: str, block_idxs: Sequence[int]) -> list[Array]:
        return [block.tokens.copy() for block in self._blocks(stream_id, block_idxs)]

    def read_thumbnails(self, stream_id: str, block_idxs: Sequence[int]) -> list[bytes | None]:
        return [block.thumbnail for block in self._blocks(stream_id, block_idxs)]

    def without_kv(self, stream_id: str, block_idxs: Sequence[int]) -> dict[int, str]:
        self._blocks(stream_id, block_idxs)
        return {}

    def reader(
        self, stream_id: str, block_idxs: Sequence[int], *, fingerprint: str, threads: int = 1
    ) -> MemoryBlockReader:
        stream = self._stream(stream_id)
        blocks = self._blocks(stream_id, block_idxs)
        if not stream.blocks:
            raise BlockNotFound(f"stream {stream_id!r} has no blocks yet: ingest more", stream_id=stream_id)
        if fingerprint != stream.record.fingerprint:
            raise FingerprintMismatch(f"the KV of stream {stream_id!r} is not of {fingerprint}", stream_id=stream_id)
        return MemoryBlockReader(blocks, KvLayout.of(stream.blocks[0].kv))

    def search(
        self, stream_id: str, queries: Array, *, limit: int, blocks: range, per_head: bool = False
    ) -> list[list[Hit]]:
        stored = self._stream(stream_id).blocks
        shape = stored[0].summary.shape if stored else None
        check_queries(queries, (shape[0], shape[2], shape[3]) if shape else None, limit, blocks)
        inside = [block for block in stored if block.block_idx in blocks]
        if not inside:
            return [[] for _ in range(len(queries) * (queries.shape[1] if per_head else 1))]
        vectors = np.stack([block.summary for block in inside]).astype(np.float64)  # [N, S, V, H, D]
        exact = queries.astype(np.float64)[:, None]
        norms = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(exact, axis=-1)
        products = (vectors * exact).sum(-1)
        cosines = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)  # [N, S, V, H]
        scores = cosines if per_head else cosines.mean(-1, keepdims=True)
        rows = scores.max(axis=2).reshape(len(inside), -1).T
        block_idxs = np.array([block.block_idx for block in inside])
        return [best_hits(block_idxs, row, limit) for row in rows]

    @property
    def library(self) -> MemoryLibrary:
        return MemoryLibrary(self)

    def hot_stats(self) -> HotStats:
        return HotStats()

    def put_turns(self, session_id: str, payload: bytes, expires_s: float) -> None:
        sessions.check_session(session_id, expires_s)
        with self._open():
            now_s = self._clock()
            self._turns = {name: turns for name, turns in self._turns.items() if turns[0] > now_s}
            self._turns[session_id] = (expires_s, bytes(payload))

    def get_turns(self, session_id: str, now_s: float) -> bytes | None:
        with self._open():
            expires_s, payload = self._turns.get(session_id, (-np.inf, b""))
            return payload if expires_s > now_s else None

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> MemoryStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open(self) -> threading.RLock:
        """The lock, once it is sure that the store is open."""
        if self._closed:
            raise StoreUnavailable("the store is closed: open it again")
        return self._lock

    def _stream(self, stream_id: str) -> _Stream:
        with self._open():
            if stream_id not in self._streams:
                raise stream_not_found(stream_id)
            return self._streams[stream_id]

    def _blocks(self, stream_id: str, block_idxs: Sequence[int]) -> list[Block]:
        blocks = self._stream(stream_id).blocks
        return [blocks[at] for at in check_block_idxs(stream_id, block_idxs, len(blocks))]


def _copy(stream: _Stream) -> _Stream:
    return _Stream(record=stream.record, blocks=list(stream.blocks), state=stream.state, stats=stream.stats)


def _owned(block: Block) -> Block:
    """The block with arrays of its own, which its maker cannot change any more."""
    return Block(
        stream_id=block.stream_id,
        block_idx=block.block_idx,
        tokens=block.tokens.copy(),
        kv=block.kv.copy(),
        summary=block.summary.copy(),
        thumbnail=block.thumbnail,
    )
