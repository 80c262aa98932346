"""What is stored under which key: streams by name, their heads (totals and layout), and the keys of their values.

table       key                            value
meta        "next_stream"                  the next stream's number, u32
meta        "head" + stream number         StreamHead
streams     stream id                      number and StreamRecord
blocks, summaries, thumbnails              stream number + block_idx -> one value per block
states      stream number                  StreamState
turns       "s" + session id               expiry and payload
turns       "e" + expiry + session id      nothing: finds what has expired
"""

from __future__ import annotations

import bisect
import contextlib
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from memory_store.blobs import Snapshot
from memory_store.codec import KvLayout
from memory_store.errors import BlockNotFound, CorruptRecord, InvalidRecord, StreamNotFound
from memory_store.records import KV_DTYPES, StreamRecord, StreamStats, TimeRange
from memory_store.values import SummaryHeader, decode_json, decode_summary_header, encode_json

_U32 = struct.Struct(">I")
_BLOCK_KEY = struct.Struct(">II")
_NEXT = b"next_stream"
_DTYPES = {dtype.name: dtype for dtype in KV_DTYPES}
PER_BLOCK = ("blocks", "summaries", "thumbnails")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntry:
    """A stream's record and the number its keys begin with. Numbers are never given twice."""

    number: int
    record: StreamRecord

    @property
    def key(self) -> bytes:
        return _U32.pack(self.number)

    def block_key(self, block_idx: int) -> bytes:
        return _BLOCK_KEY.pack(self.number, block_idx)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHead:
    """Totals of a stream that has blocks, and the layout they share. `summary_shape`: [S, V, H, D]."""

    stats: StreamStats
    layout: KvLayout
    summary_shape: tuple[int, int, int, int]


def find_entry(snapshot: Snapshot, stream_id: str) -> StreamEntry | None:
    value = snapshot.get("streams", stream_id.encode()) if stream_id else None
    return None if value is None else _entry(stream_id.encode(), value)


def get_entry(snapshot: Snapshot, stream_id: str) -> StreamEntry:
    """Raises: StreamNotFound."""
    entry = find_entry(snapshot, stream_id)
    if entry is None:
        raise stream_not_found(stream_id)
    return entry


def all_entries(snapshot: Snapshot) -> list[StreamEntry]:
    """In order of stream_id."""
    return [_entry(key, value) for key, value in snapshot.scan("streams", b"")]


def add_entry(snapshot: Snapshot, record: StreamRecord) -> StreamEntry:
    key, counter = record.stream_id.encode(), snapshot.get("meta", _NEXT)
    entry = StreamEntry(number=_U32.unpack(counter)[0] if counter else 0, record=record)
    snapshot.put("meta", _NEXT, _U32.pack(entry.number + 1))
    snapshot.put("streams", key, encode_json(b"STRM", key, {"number": entry.number, "record": asdict(record)}))
    return entry


def remove_entry(snapshot: Snapshot, entry: StreamEntry) -> None:
    """Delete the stream and every value of it."""
    for table in PER_BLOCK:
        for key in [key for key, _ in snapshot.scan(table, entry.key)]:
            snapshot.delete(table, key)
    snapshot.delete("states", entry.key)
    snapshot.delete("meta", b"head" + entry.key)
    snapshot.delete("streams", entry.record.stream_id.encode())


def get_head(snapshot: Snapshot, entry: StreamEntry) -> StreamHead | None:
    """None while the stream has no block."""
    value = snapshot.get("meta", b"head" + entry.key)
    if value is None:
        return None
    with naming(entry, "totals"):
        fields = decode_json(b"HEAD", entry.key, value)
    layout = fields["layout"] | {"dtype": _DTYPES[fields["layout"]["dtype"]]}
    return StreamHead(
        stats=StreamStats(**fields["stats"]),
        layout=KvLayout(**layout),
        summary_shape=tuple(fields["summary_shape"]),
    )


def put_head(snapshot: Snapshot, entry: StreamEntry, head: StreamHead) -> None:
    layout = {name: getattr(head.layout, name) for name in ("num_layers", "num_heads", "block_size", "head_dim")}
    fields = {
        "stats": asdict(head.stats),
        "layout": layout | {"dtype": head.layout.dtype.name},
        "summary_shape": head.summary_shape,
    }
    snapshot.put("meta", b"head" + entry.key, encode_json(b"HEAD", entry.key, fields))


def num_blocks(head: StreamHead | None) -> int:
    return head.stats.num_blocks if head else 0


def block_value(snapshot: Snapshot, table: str, entry: StreamEntry, block_idx: int) -> memoryview:
    """The value a table holds for a block that the head counts.

    Raises:
        CorruptRecord: it is not there.
    """
    value = snapshot.get(table, entry.block_key(block_idx))
    if value is None:
        raise CorruptRecord(
            f"block {block_idx} of stream {entry.record.stream_id!r} is missing from {table}: ingest the stream again",
            stream_id=entry.record.stream_id,
            block_idx=block_idx,
        )
    return value


def block_totals(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> SummaryHeader:
    value = block_value(snapshot, "summaries", entry, block_idx)
    with naming(entry, "summary", block_idx):
        return decode_summary_header(entry.block_key(block_idx), value)


@contextlib.contextmanager
def naming(entry: StreamEntry, what: str, block_idx: int | None = None) -> Iterator[None]:
    """Tell a corrupt value by its stream (and block) instead of its key."""
    try:
        yield
    except CorruptRecord as error:
        whose = "" if block_idx is None else f"block {block_idx} of "
        raise CorruptRecord(
            f"the stored {what} of {whose}stream {entry.record.stream_id!r} fails its checksum: delete the stream and "
            "ingest it again",
            stream_id=entry.record.stream_id,
            block_idx=block_idx,
        ) from error


def overlapping(snapshot: Snapshot, entry: StreamEntry, count: int, time_range: TimeRange) -> range:
    """Blocks of 0..count-1 that overlap the range; both ends of blocks grow with their number, so it is a search."""
    blocks = range(count)
    first = bisect.bisect_left(blocks, time_range.start_s, key=lambda at: block_totals(snapshot, entry, at).end_s)
    stop = bisect.bisect_right(blocks, time_range.end_s, key=lambda at: block_totals(snapshot, entry, at).start_s)
    return range(first, max(first, stop))


def check_block_idxs(stream_id: str, block_idxs: Any, count: int) -> list[int]:
    """`block_idxs` as ints.

    Raises:
        BlockNotFound: one is not in 0..count-1.
    """
    checked = [int(block_idx) for block_idx in np.asarray(block_idxs, dtype=object).ravel()]
    for block_idx in checked:
        if not 0 <= block_idx < count:
            raise BlockNotFound(
                f"stream {stream_id!r} has no block {block_idx}: its {count} blocks count from 0",
                stream_id=stream_id,
                block_idx=block_idx,
            )
    return checked


def stream_not_found(stream_id: str) -> StreamNotFound:
    return StreamNotFound(f"no stream {stream_id!r}: list the streams to see their names", stream_id=stream_id)


def plain_record(record: StreamRecord) -> StreamRecord:
    """The record as it will read back: its settings as plain JSON values, its labels text.

    Raises:
        InvalidRecord: settings or labels are not that.
    """
    what = {"stream_id": record.stream_id}
    if not all(isinstance(text, str) for pair in record.labels.items() for text in pair):
        raise InvalidRecord(f"stream {record.stream_id!r}: labels must be text", **what)
    try:
        settings = json.loads(json.dumps(dict(record.settings)))
    except (TypeError, ValueError) as error:
        raise InvalidRecord(f"stream {record.stream_id!r}: settings are not JSON ({error})", **what) from None
    return StreamRecord(
        stream_id=record.stream_id,
        fingerprint=record.fingerprint,
        settings=settings,
        labels=dict(record.labels),
        created_s=record.created_s,
    )


def _entry(key: bytes, value: memoryview) -> StreamEntry:
    fields = decode_json(b"STRM", key, value)
    return StreamEntry(number=fields["number"], record=StreamRecord(**fields["record"]))
