"""Stores behind actors, as one: what is on this node is read from its files, all else through the actor."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, cast

import ray

from cacheflow_ray.actors.errors import may_be_back, unwrapped
from cacheflow_ray.actors.setup import Setup, StorePlace
from cacheflow_ray.engine.protocol import BlockReader
from cacheflow_ray.errors import ClusterUnavailable
from memory_store import Store, StoreError, StoreUnavailable
from memory_store.everywhere import best_of
from memory_store.folder import shard_of
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

_CALL_TIMEOUT_S = 60.0
_RETRY_EVERY_S = 0.2


class RemoteStore:
    """A `BlockStore` over the cluster's store actors; see `memory_store.Store`. Thread-safe.

    Every call may raise ClusterUnavailable: the stream's store has been away for longer than `setup.patience_s`.
    Calls that are repeated, for nobody knows whether the first was heard, change nothing the second time.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._parts = [_Part(place, setup) for place in setup.stores]
        self.library = RemoteLibrary(self._parts)
        self.ledger = RemoteLedger(self._parts)

    def place_of(self, stream_id: str) -> int:
        """The number of the store that keeps a stream (or a session, named `stream/...`)."""
        return shard_of(stream_id.partition("/")[0], len(self._parts))

    def create_stream(self, record: StreamRecord) -> StreamRecord:
        return self._writing(record.stream_id).create_stream(record)

    def get_stream(self, stream_id: str) -> StreamRecord:
        return self._reading(stream_id).get_stream(stream_id)

    def list_streams(self) -> list[StreamRecord]:
        """Of the stores that answer."""
        records: list[StreamRecord] = []
        for part in self._parts:
            with contextlib.suppress(ClusterUnavailable):
                records += part.reading().list_streams()
        return sorted(records, key=lambda record: record.stream_id)

    def delete_stream(self, stream_id: str) -> None:
        self._writing(stream_id).delete_stream(stream_id)

    def relabel(self, stream_id: str, labels: Mapping[str, str]) -> StreamRecord:
        return self._writing(stream_id).relabel(stream_id, labels)

    def claim(self, stream_id: str) -> int:
        return self._writing(stream_id).claim(stream_id)

    def get_retention(self, stream_id: str) -> Retention | None:
        found: Retention | None = self._part(stream_id).ask(lambda actor: actor.get_retention.remote(stream_id))
        return found

    def set_retention(self, stream_id: str, policy: Retention) -> None:
        self._part(stream_id).ask(lambda actor: actor.set_retention.remote(stream_id, policy))

    def load_state(self, stream_id: str) -> StreamState | None:
        return self._reading(stream_id).load_state(stream_id)

    def commit(self, commits: Sequence[Commit]) -> None:
        """One transaction per store; those of other stores may be durable when one raises."""
        of_part: dict[int, list[Commit]] = {}
        for commit in commits:
            of_part.setdefault(self.place_of(commit.stream_id), []).append(commit)
        for number, own in of_part.items():
            self._parts[number].writing().commit(own)

    def stats(self, stream_id: str) -> StreamStats:
        return self._reading(stream_id).stats(stream_id)

    def times(self, stream_id: str) -> Array:
        return self._reading(stream_id).times(stream_id)

    def blocks_in(self, stream_id: str, time_range: TimeRange) -> range:
        return self._reading(stream_id).blocks_in(stream_id, time_range)

    def read_tokens(self, stream_id: str, block_idxs: Sequence[int]) -> list[Array]:
        return self._reading(stream_id).read_tokens(stream_id, block_idxs)

    def read_thumbnails(self, stream_id: str, block_idxs: Sequence[int]) -> list[bytes | None]:
        return self._reading(stream_id).read_thumbnails(stream_id, block_idxs)

    def without_kv(self, stream_id: str, block_idxs: Sequence[int]) -> dict[int, str]:
        return self._reading(stream_id).without_kv(stream_id, block_idxs)

    def reader(
        self, stream_id: str, block_idxs: Sequence[int], *, fingerprint: str, threads: int = 1
    ) -> AbstractContextManager[BlockReader]:
        part = self._part(stream_id)
        local = part.local()
        if local is not None:
            return local.reader(stream_id, block_idxs, fingerprint=fingerprint, threads=threads)
        return _fetched(part.ask(lambda actor: actor.read_blocks.remote(stream_id, list(block_idxs), fingerprint)))

    def search(
        self, stream_id: str, queries: Array, *, limit: int, blocks: range, per_head: bool = False
    ) -> list[list[Hit]]:
        return self._reading(stream_id).search(stream_id, queries, limit=limit, blocks=blocks, per_head=per_head)

    def put_turns(self, session_id: str, payload: bytes, expires_s: float) -> None:
        self._writing(session_id).put_turns(session_id, payload, expires_s)

    def get_turns(self, session_id: str, now_s: float) -> bytes | None:
        return self._reading(session_id).get_turns(session_id, now_s)

    def close(self) -> None:
        """Give up the files that are read."""
        for part in self._parts:
            part.close()

    def _part(self, stream_id: str) -> _Part:
        return self._parts[self.place_of(stream_id)]

    def _reading(self, name: str) -> Store:
        return self._part(name).reading()

    def _writing(self, name: str) -> Store:
        return self._part(name).writing()


class RemoteLibrary:
    """Search over the streams of all stores: every store actor keeps the index of its own.

    Raises:
        ClusterUnavailable: a store is away, whose streams nobody could tell from streams without a match.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts

    def search(self, queries: Array, *, limit: int, **options: Any) -> list[list[LibraryHit]]:
        """As `memory_store.everywhere.LibrarySearch.search`."""
        with ThreadPoolExecutor(len(self._parts)) as threads:
            found = list(threads.map(lambda part: part.search_library(queries, limit=limit, **options), self._parts))
        return [best_of(rankings, limit) for rankings in zip(*found, strict=True)]


class RemoteLedger:
    """As `memory_store.ledger.Ledger`; each book is kept by one of the stores."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts

    def put(self, book: str, entries: Mapping[str, bytes | None]) -> None:
        self._part(book).ask(lambda actor: actor.note.remote("put", book, entries))

    def claim(self, book: str, key: str, payload: bytes) -> bytes:
        there: bytes = self._part(book).ask(lambda actor: actor.note.remote("claim", book, key, payload))
        return there

    def get(self, book: str, key: str) -> bytes | None:
        local = self._part(book).local()
        if local is not None:
            return local.ledger.get(book, key)
        found: bytes | None = self._part(book).ask(lambda actor: actor.note.remote("get", book, key))
        return found

    def entries(self, book: str) -> dict[str, bytes]:
        local = self._part(book).local()
        if local is not None:
            return local.ledger.entries(book)
        found: dict[str, bytes] = self._part(book).ask(lambda actor: actor.note.remote("entries", book))
        return found

    def _part(self, book: str) -> _Part:
        return self._parts[shard_of(book, len(self._parts))]


class _Part:
    """One store: its actor, and its files where they are on this node."""

    def __init__(self, place: StorePlace, setup: Setup) -> None:
        self._place, self._setup = place, setup
        self._actor: Any = None
        self._here: bool | None = None
        self._local: Store | None = None
        self._lock = threading.Lock()

    def ask(self, call: Any) -> Any:
        """Ask the actor, for as long as patience lasts where it is away."""
        deadline = time.monotonic() + self._setup.patience_s
        while True:
            try:
                if self._actor is None:
                    self._actor = ray.get_actor(self._place.name, self._setup.namespace)
                return ray.get(call(self._actor), timeout=_CALL_TIMEOUT_S)
            except Exception as error:
                absent = may_be_back(error) or isinstance(error, ValueError)  # no actor of that name yet
                if not absent or time.monotonic() > deadline:
                    ended = TimeoutError() if isinstance(error, ValueError) and absent else error
                    raise unwrapped(ended, self._place.name) from error
                self._actor = None  # it may have been made anew
                time.sleep(_RETRY_EVERY_S)

    def search_library(self, queries: Array, **options: Any) -> list[list[LibraryHit]]:
        found: list[list[LibraryHit]] = self.ask(lambda actor: actor.search_library.remote(queries, **options))
        return found

    def reading(self) -> Store:
        """The files where they are here (the writer's commits are seen at once), or the actor."""
        local = self.local()
        return self.writing() if local is None else local

    def writing(self) -> Store:
        """The actor, as the store it keeps: for the calls it takes."""
        return cast("Store", _Calls(self))

    def local(self) -> Store | None:
        """The files, where the store actor runs on this node; it never moves to another, for its disk does not."""
        with self._lock:
            if self._here is None:
                here: str = ray.get_runtime_context().get_node_id()
                self._here = self.ask(lambda actor: actor.node.remote()) == here
            if self._local is None and self._here:
                with contextlib.suppress(StoreError):  # not made yet, or not to be seen from here
                    self._local = Store.open(
                        self._place.folder, read_only=True, hot_bytes=self._setup.store_options.hot_bytes
                    )
            return self._local

    def close(self) -> None:
        if self._local is not None:
            with contextlib.suppress(StoreUnavailable):
                self._local.close()


class _Calls:
    """Every call as the actor's."""

    def __init__(self, part: _Part) -> None:
        self._part = part

    def __getattr__(self, call: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._part.ask(lambda actor: actor.call.remote(call, *args, **kwargs))


class _Fetched:
    """Blocks that came through the actor, as a `BlockReader`."""

    def __init__(self, tokens: list[Array], kv: Array) -> None:
        self.tokens, self._kv = tokens, kv

    def read(self, layers: range, keys_out: Array, values_out: Array) -> int:
        part = self._kv[:, layers.start : layers.stop]
        keys_out[...], values_out[...] = part[0].view(keys_out.dtype), part[1].view(values_out.dtype)
        return int(keys_out.nbytes + values_out.nbytes)


@contextlib.contextmanager
def _fetched(blocks: tuple[list[Array], Array]) -> Iterator[BlockReader]:
    yield _Fetched(*blocks)
