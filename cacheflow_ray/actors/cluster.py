"""The cluster as a service beside it sees it: `api.ClusterPort` over the actors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import ray

from cacheflow_ray.actors.api import (
    ActorStatus,
    Answered,
    AskCall,
    ClusterStatus,
    Found,
    LiveStream,
    NewStream,
    PayloadKind,
    SearchCall,
    StreamView,
)
from cacheflow_ray.actors.errors import asked
from cacheflow_ray.actors.index_jobs import IndexJobs
from cacheflow_ray.actors.pushed import Pushed
from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import DIRECTOR, GATEWAY, Setup
from cacheflow_ray.engine.catalog import SOURCE_URI, stream_info, stream_position
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.errors import ClusterUnavailable
from memory_store.records import Retention

_CALL_S = 60.0
_OPEN_S = 20.0
_STATUS_S = 2.0
_NAMED_FOR_S = 2.0
_RETRY_EVERY_S = 0.2
_ROLES = ("encoder", "answerer", "store")


class Cluster:
    """Calls on the actors, by name; used in one event loop. See `api.ClusterPort`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._store = RemoteStore(setup)
        self.index = IndexJobs(setup, self._store)
        self._asking: Counter[str] = Counter()  # questions of ours, by answerer
        self._answerers: list[str] = []
        self._named_at = -_NAMED_FOR_S
        self._handles: dict[str, Any] = {}

    async def create_stream(self, new: NewStream) -> StreamView:
        await self._ensure(new)
        return await self.get_stream(new.stream_id)

    async def get_stream(self, stream_id: str) -> StreamView:
        return await asyncio.to_thread(self._view, stream_id)

    async def list_streams(self, prefix: str, after: str, limit: int) -> list[StreamView]:
        return await asyncio.to_thread(self._views, prefix, after, limit)

    async def update_stream(
        self, stream_id: str, *, labels: Mapping[str, str] | None, retention: Retention | None
    ) -> StreamView:
        if labels is not None:
            await asyncio.to_thread(self._store.relabel, stream_id, dict(labels))
        if retention is not None:
            await asyncio.to_thread(self._store.set_retention, stream_id, retention)
        return await self.get_stream(stream_id)

    async def delete_stream(self, stream_id: str) -> None:
        await asyncio.to_thread(self._store.delete_stream, stream_id)
        await self._direct("release", stream_id)

    async def open_ingest(self, new: NewStream, kind: PayloadKind, overload: Overload) -> Pushed:
        name = await self._ensure(new)
        epoch = await self._direct("claim", new.stream_id)
        position = await self._asked(name, "open", new.stream_id, epoch, kind, overload, timeout_s=_OPEN_S)
        session = Pushed(self._actor(name), name, new.stream_id, epoch, self._let_go)
        session.position, options = position, self._setup.encoder_options
        session.credit_frames = options.queue_frames * (1 if overload is Overload.BLOCK else 2)
        session.credit_bytes = options.queue_bytes
        return session

    async def ask(self, call: AskCall) -> AsyncIterator[str | Answered]:
        tried: list[str] = []
        question_id = uuid.uuid4().hex
        while True:
            name = await self._answerer(tried)
            self._asking[name] += 1
            last, begun = None, False
            try:
                text, last = await self._asked(name, "ask", question_id, call)
                while True:
                    if text:
                        begun = True
                        yield text
                    if last is not None:
                        yield last
                        return
                    text, last = await self._asked(name, "more", question_id)
            except ClusterUnavailable:
                tried.append(name)
                if begun:
                    raise
            finally:
                self._asking[name] -= 1
                if last is None and name in self._handles:
                    self._handles[name].cancel.remote(question_id)

    async def search(self, call: SearchCall) -> Found:
        tried: list[str] = []
        while True:
            name = await self._answerer(tried)
            try:
                found: Found = await self._asked(name, "search", call)
                return found
            except ClusterUnavailable:
                tried.append(name)

    async def status(self) -> ClusterStatus:
        names = await self._direct("names")
        every = [(role, name) for role, own in zip(_ROLES, names, strict=True) for name in own]
        every += [("gateway", GATEWAY), ("director", DIRECTOR)]
        told = await asyncio.gather(*[self._status(role, name) for role, name in every])
        return ClusterStatus(
            actors=tuple(status for status, _ in told), streams=tuple(itertools.chain(*[live for _, live in told]))
        )

    async def scale(self, *, encoders: int | None, answerers: int | None) -> tuple[int, int]:
        counts: tuple[int, int] = await self._direct("scale", encoders, answerers, timeout_s=2 * _CALL_S)
        return counts

    async def _let_go(self, stream_id: str, lost: str | None) -> None:
        """Nobody pushes the stream any more, or its encoder does not answer."""
        with contextlib.suppress(ClusterUnavailable):
            await (self._direct("release", stream_id) if lost is None else self._direct("lost", lost))

    async def _ensure(self, new: NewStream) -> str:
        """Have the stream's encoder make it; the encoder's name. One that does not answer is passed over once."""
        passed_over: str | None = None
        while True:
            name = str(await self._direct("encoder_for", new.stream_id))
            try:
                await self._asked(name, "ensure", new, timeout_s=_OPEN_S)
                return name
            except ClusterUnavailable:
                if passed_over is not None:
                    raise
                passed_over = name
                await self._direct("lost", name)

    async def _answerer(self, tried: Sequence[str]) -> str:
        """The one with the fewest questions of ours. Raises: ClusterUnavailable: all were tried."""
        if time.monotonic() > self._named_at + _NAMED_FOR_S:
            _, self._answerers, _ = await self._direct("names")
            self._named_at = time.monotonic()
        left = [name for name in self._answerers if name not in tried]
        if not left:
            self._named_at = -_NAMED_FOR_S
            raise ClusterUnavailable("no answerer answers: try again in a moment")
        return min(left, key=lambda name: (self._asking[name], name))

    async def _status(self, role: str, name: str) -> tuple[ActorStatus, list[LiveStream]]:
        try:
            told = await self._asked(name, "status", timeout_s=_STATUS_S)
        except ClusterUnavailable:
            return ActorStatus(name=name, role=role, alive=False), []
        pid, resident, node, text = told[:4]
        status = ActorStatus(
            name=name, role=role, alive=True, pid=pid, resident_bytes=resident, node=node, exposition=text
        )
        live: dict[str, tuple[Position, int]] = told[4] if len(told) > 4 else {}
        streams = [
            LiveStream(stream_id=stream_id, encoder=name, position=position, queued=queued)
            for stream_id, (position, queued) in live.items()
        ]
        return status, streams

    def _view(self, stream_id: str) -> StreamView:
        record = self._store.get_stream(stream_id)
        uri = record.settings.get(SOURCE_URI)
        return StreamView(
            info=stream_info(self._store, record),
            position=stream_position(self._store, stream_id),
            tenant=record.tenant,
            retention=self._store.get_retention(stream_id),
            source_uri=None if uri is None else str(uri),
        )

    def _views(self, prefix: str, after: str, limit: int) -> list[StreamView]:
        names = [record.stream_id for record in self._store.list_streams()]
        wanted = [name for name in names if name.startswith(prefix) and name > after]
        return [self._view(name) for name in wanted[:limit]]

    async def _direct(self, call: str, *args: Any, timeout_s: float = _CALL_S) -> Any:
        """Ask the director, for as long as patience lasts where it is away; every call of it may be repeated."""
        deadline = time.monotonic() + self._setup.patience_s
        while True:
            try:
                return await self._asked(DIRECTOR, call, *args, timeout_s=timeout_s)
            except ClusterUnavailable as error:
                if error.ids.get("actor") != DIRECTOR or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_RETRY_EVERY_S)

    async def _asked(self, name: str, call: str, *args: Any, timeout_s: float = _CALL_S) -> Any:
        try:
            return await asked(getattr(self._actor(name), call).remote(*args), name, timeout_s)
        except ClusterUnavailable:
            self._handles.pop(name, None)
            raise

    def _actor(self, name: str) -> Any:
        """By name; a handle stays good while its actor is restarted, and ends with one that was let go."""
        if name not in self._handles:
            try:
                self._handles[name] = ray.get_actor(name, self._setup.namespace)
            except ValueError as error:
                raise ClusterUnavailable(f"there is no {name} (any more): try again in a moment", actor=name) from error
        return self._handles[name]
