"""What the engine asks of a store: a local one and one behind actors interchange here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from memory_store.records import (
    Array,
    Commit,
    Hit,
    LibraryHit,
    Retention,
    StreamRecord,
    StreamState,
    StreamStats,
    TimeRange,
)


class BlockReader(Protocol):
    """Stored KV of chosen blocks, verified as it is copied out."""

    tokens: list[Array]

    def read(self, layers: range, keys_out: Array, values_out: Array) -> int:
        """Copy un-rotated keys and values of `layers` into [l, H, K*B, D] arrays of the KV dtype; returns bytes."""


class Library(Protocol):
    """Search over all streams; see `memory_store.everywhere.LibrarySearch`."""

    def search(
        self,
        queries: Array,
        *,
        fingerprint: str,
        limit: int,
        streams: Collection[str] | None = None,
        time_range: TimeRange | Mapping[str, TimeRange] | None = None,
        per_head: bool = False,
    ) -> list[list[LibraryHit]]: ...


class BlockStore(Protocol):
    """The part of `memory_store.Store` the engine uses; see there for shapes and errors."""

    @property
    def library(self) -> Library: ...

    def create_stream(self, record: StreamRecord) -> StreamRecord: ...

    def get_stream(self, stream_id: str) -> StreamRecord: ...

    def list_streams(self) -> list[StreamRecord]: ...

    def set_retention(self, stream_id: str, policy: Retention) -> None: ...

    def delete_stream(self, stream_id: str) -> None: ...

    def claim(self, stream_id: str) -> int: ...

    def load_state(self, stream_id: str) -> StreamState | None: ...

    def commit(self, commits: Sequence[Commit]) -> None: ...

    def stats(self, stream_id: str) -> StreamStats: ...

    def times(self, stream_id: str) -> Array: ...

    def blocks_in(self, stream_id: str, time_range: TimeRange) -> range: ...

    def read_tokens(self, stream_id: str, block_idxs: Sequence[int]) -> list[Array]: ...

    def read_thumbnails(self, stream_id: str, block_idxs: Sequence[int]) -> list[bytes | None]: ...

    def without_kv(self, stream_id: str, block_idxs: Sequence[int]) -> dict[int, str]: ...

    def reader(
        self, stream_id: str, block_idxs: Sequence[int], *, fingerprint: str, threads: int = 1
    ) -> AbstractContextManager[BlockReader]: ...

    def search(
        self, stream_id: str, queries: Array, *, limit: int, blocks: range, per_head: bool = False
    ) -> list[list[Hit]]: ...

    def put_turns(self, session_id: str, payload: bytes, expires_s: float) -> None: ...

    def get_turns(self, session_id: str, now_s: float) -> bytes | None: ...

    def close(self) -> None: ...
