"""Streams: to be made, as they are, page by page, and what changes of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from cacheflow_ray.actors.api import NewStream, StreamView
from cacheflow_ray.engine.position import Position
from cacheflow_ray.engine.reports import StreamInfo
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.messages.fields import nanoseconds, read_labels
from cacheflow_ray.service.messages.settings import (
    read_retention,
    read_settings,
    read_stored_settings,
    write_retention,
    write_settings,
    write_stored_settings,
)
from cacheflow_ray.service.tenants import bare, qualified
from cacheflow_ray.service.v1 import stream_pb2
from memory_store.records import Retention

#: Streams of a page where the client does not say, and at most.
PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

#: What of a stream can be changed.
_CHANGING = ("labels", "retention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of streams asked for: those that come after the id `after` and have all these labels."""

    after: str
    limit: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """New labels and a new retention, None: as they are (`Retention()` keeps all)."""

    stream_id: str
    labels: Mapping[str, str] | None = None
    retention: Retention | None = None


def read_new_stream(message: stream_pb2.Stream, tenant: str = "") -> NewStream:
    """Output-only fields are not looked at. Raises: UsageError, InvalidConfig: naming the field."""
    if message.HasField("source") and not message.source.uri:
        field = "stream.source.uri"
        raise UsageError(f"{field}: is empty; give an address or a path, or no source", field=field)
    return NewStream(
        stream_id=qualified(tenant, message.name, field="stream.name"),
        tenant=tenant,
        settings=read_settings(message.settings, "stream.settings") if message.HasField("settings") else None,
        labels=read_labels(message.labels, "stream.labels"),
        source_uri=message.source.uri if message.HasField("source") else None,
        retention=read_retention(message.retention, "stream.retention") if message.HasField("retention") else None,
    )


def write_new_stream(new: NewStream) -> stream_pb2.Stream:
    """As a client asks for it."""
    return stream_pb2.Stream(
        name=bare(new.tenant, new.stream_id),
        settings=None if new.settings is None else write_settings(new.settings),
        labels=new.labels,
        source=None if new.source_uri is None else stream_pb2.Source(uri=new.source_uri),
        retention=None if new.retention is None else write_retention(new.retention),
    )


def read_stream(message: stream_pb2.Stream) -> StreamView:
    """A stream as a server tells it; the tenant stays untold."""
    totals = message.totals
    info = StreamInfo(
        stream=message.name,
        model=message.model,
        fingerprint=message.fingerprint,
        settings={"model": message.model} | read_stored_settings(message.settings),
        labels=dict(message.labels),
        created_s=message.create_time.ToNanoseconds() / 10**9,
        complete=message.complete,
        warning=message.warning or None,
        frames=totals.frames,
        tokens_seen=totals.tokens_seen,
        tokens_kept=totals.tokens_kept,
        blocks=totals.blocks,
        tail_tokens=totals.tail_tokens,
        num_bytes=totals.stored_bytes,
        start_s=totals.start_s if totals.HasField("start_s") else None,
        end_s=totals.end_s if totals.HasField("end_s") else None,
        grid=(message.grid_rows, message.grid_cols),
        frames_per_unit=message.frames_per_unit,
    )
    return StreamView(
        info=info,
        position=read_totals(totals, complete=message.complete),
        tenant="",
        retention=read_retention(message.retention) if message.HasField("retention") else None,
        source_uri=message.source.uri if message.HasField("source") else None,
    )


def write_stream(view: StreamView) -> stream_pb2.Stream:
    """Counts are those of the position, which is ahead of the info where the stream is being ingested."""
    info = view.info
    totals = write_totals(view.position)
    totals.stored_bytes = info.num_bytes
    if info.start_s is not None and info.end_s is not None:
        totals.start_s, totals.end_s = info.start_s, info.end_s
    created = Timestamp()
    created.FromNanoseconds(nanoseconds(info.created_s))
    return stream_pb2.Stream(
        name=bare(view.tenant, info.stream),
        settings=write_stored_settings({"kv_codec": "native"} | dict(info.settings)),
        labels=info.labels,
        retention=None if view.retention is None else write_retention(view.retention),
        source=None if view.source_uri is None else stream_pb2.Source(uri=view.source_uri),
        model=info.model,
        fingerprint=info.fingerprint,
        create_time=created,
        totals=totals,
        complete=info.complete or view.position.complete,
        warning=info.warning or "",
        grid_rows=info.grid[0],
        grid_cols=info.grid[1],
        frames_per_unit=info.frames_per_unit,
    )


def read_totals(totals: stream_pb2.StreamTotals, *, shed: int = 0, complete: bool = False) -> Position:
    """What of a position is not the stream's own comes beside."""
    return Position(
        next_seq=totals.next_seq,
        frames=totals.frames,
        tokens_seen=totals.tokens_seen,
        tokens_kept=totals.tokens_kept,
        duplicates=totals.duplicate_frames,
        out_of_order=totals.out_of_order_frames,
        blocks=totals.blocks,
        tail_tokens=totals.tail_tokens,
        shed=shed,
        complete=complete,
    )


def write_totals(position: Position) -> stream_pb2.StreamTotals:
    """Without bytes and times, which a position does not have."""
    return stream_pb2.StreamTotals(
        frames=position.frames,
        tokens_seen=position.tokens_seen,
        tokens_kept=position.tokens_kept,
        duplicate_frames=position.duplicates,
        out_of_order_frames=position.out_of_order,
        blocks=position.blocks,
        tail_tokens=position.tail_tokens,
        next_seq=position.next_seq,
    )


def read_page(message: stream_pb2.ListStreamsRequest, tenant: str = "") -> Page:
    """Raises: UsageError: a negative size, or a token that no page gave."""
    if message.page_size < 0:
        raise UsageError(
            f"page_size: {message.page_size} is not allowed; allowed: 1 to {MAX_PAGE_SIZE}, or 0 for {PAGE_SIZE}",
            field="page_size",
        )
    return Page(
        after=_read_page_token(message.page_token, tenant) if message.page_token else "",
        limit=min(message.page_size or PAGE_SIZE, MAX_PAGE_SIZE),
        labels=read_labels(message.labels),
    )


def write_page_token(last: StreamView) -> str:
    """For the page after the one that `last` ends."""
    return base64.urlsafe_b64encode(bare(last.tenant, last.info.stream).encode()).decode()


def _read_page_token(token: str, tenant: str) -> str:
    try:
        return qualified(tenant, base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode())
    except (binascii.Error, UnicodeError, UsageError):
        raise UsageError(
            "page_token: is none that a page gave; give `next_page_token` of the page before, or none",
            field="page_token",
        ) from None


def read_changes(message: stream_pb2.UpdateStreamRequest, tenant: str = "") -> Changes:
    """Raises: UsageError: a field that cannot be changed, or a value that is none."""
    stream, paths = message.stream, set(message.update_mask.paths)
    unknown = sorted(paths - {*_CHANGING, "*"})
    if unknown:
        raise UsageError(
            f"update_mask: {unknown[0]!r:.160} cannot be changed; allowed: {', '.join(_CHANGING)}, or *",
            field="update_mask",
        )
    if not paths:
        given = {"labels": bool(stream.labels), "retention": stream.HasField("retention")}
        paths = {name for name in _CHANGING if given[name]}
    changing = set(_CHANGING) if "*" in paths else paths
    return Changes(
        stream_id=qualified(tenant, stream.name, field="stream.name"),
        labels=read_labels(stream.labels, "stream.labels") if "labels" in changing else None,
        retention=read_retention(stream.retention, "stream.retention") if "retention" in changing else None,
    )


def write_changes(changes: Changes) -> stream_pb2.UpdateStreamRequest:
    """As a client asks for them."""
    request = stream_pb2.UpdateStreamRequest(
        stream=stream_pb2.Stream(
            name=changes.stream_id,
            labels=changes.labels,
            retention=None if changes.retention is None else write_retention(changes.retention),
        )
    )
    request.update_mask.paths.extend(name for name in _CHANGING if getattr(changes, name) is not None)
    return request
