"""What is stored under which key: streams by name, their heads (totals and layout), and the keys of their values.

table       key                            value
meta        "next_stream"                  the next stream's number, u32
meta        "head" + stream number         StreamHead
streams     stream id                      number and StreamRecord
blocks, summaries, thumbnails, ages        stream number + block_idx -> one value per block; ages: when it was stored
tokens, absent                             the same, of blocks without KV: their tokens, and why and how much is gone
states      stream number                  StreamState
policies    stream number                  Retention
doomed      stream number                  nothing: a deleted stream whose blocks are still to be removed
turns       "s" + session id               expiry and payload
turns       "e" + expiry + session id      nothing: finds what has expired
notes       book, NUL, key                 what the keeper of the book wrote
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from memory_store.blobs import Snapshot
from memory_store.codec import KvLayout
from memory_store.errors import BlockNotFound, CorruptRecord, InvalidRecord, StreamNotFound
from memory_store.quantize import codec_of
from memory_store.records import KV_DTYPES, StreamRecord, StreamStats, TimeRange
from memory_store.values import (
    SummaryHeader,
    decode_json,
    decode_state,
    decode_summary_header,
    encode_json,
    seal,
    unseal,
)

_U32 = struct.Struct(">I")
_BLOCK_KEY = struct.Struct(">II")
_NEXT = b"next_stream"
_DTYPES = {dtype.name: dtype for dtype in KV_DTYPES}
PER_BLOCK = ("blocks", "summaries", "thumbnails", "ages", "tokens", "absent")


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
    """Totals of a stream that has blocks, and the layout they share.

    Args:
        summary_shape: [S, V, H, D].
        live: the blocks that are kept, as ascending ranges.
        aged_to: of the blocks below it, all that may lose their KV have lost it.
    """

    stats: StreamStats
    layout: KvLayout
    summary_shape: tuple[int, int, int, int]
    live: tuple[range, ...]
    aged_to: int = 0


def find_entry(snapshot: Snapshot, stream_id: str) -> StreamEntry | None:
    value = snapshot.get("streams", stream_id.encode()) if stream_id else None
    return None if value is None else decode_entry(stream_id.encode(), value)


def get_entry(snapshot: Snapshot, stream_id: str) -> StreamEntry:
    """Raises: StreamNotFound."""
    entry = find_entry(snapshot, stream_id)
    if entry is None:
        check_streams(snapshot, sum(1 for _ in snapshot.scan("streams", b"")))
        raise stream_not_found(stream_id)
    return entry


def all_entries(snapshot: Snapshot) -> list[StreamEntry]:
    """In order of stream_id. Raises: CorruptRecord."""
    entries = [decode_entry(key, value) for key, value in snapshot.scan("streams", b"")]
    check_streams(snapshot, len(entries))
    return entries


def check_streams(snapshot: Snapshot, found: int) -> None:
    """A damaged page of LMDB's can hide streams. Raises: CorruptRecord."""
    if found != snapshot.count("streams"):
        raise CorruptRecord(
            f"{found} of {snapshot.count('streams')} streams are found: the database is damaged, restore a snapshot"
        )


def add_entry(snapshot: Snapshot, record: StreamRecord) -> StreamEntry:
    entry = StreamEntry(number=_next_number(snapshot), record=record)
    snapshot.put("meta", _NEXT, seal(b"NEXT", _NEXT, _U32.pack(entry.number + 1)))
    _put_entry(snapshot, entry)
    return entry


def _next_number(snapshot: Snapshot) -> int:
    """Above every number that is, or was, a stream's: two streams of one number would be mixed."""
    value = snapshot.get("meta", _NEXT)
    if value is None or len(value) == _U32.size:  # as it was before it had a checksum
        return _U32.unpack(value)[0] if value else 0
    try:
        number: int = _U32.unpack(unseal(b"NEXT", _NEXT, value))[0]
        return number
    except CorruptRecord:
        taken = [entry.number for entry in all_entries(snapshot)]
        taken += [
            int.from_bytes(key[:4], "big") for table in ("doomed", *PER_BLOCK) for key, _ in snapshot.scan(table, b"")
        ]
        return max(taken, default=-1) + 1


def relabel(snapshot: Snapshot, entry: StreamEntry, labels: Mapping[str, str]) -> StreamEntry:
    """The stream with these labels instead of its own."""
    entry = replace(entry, record=plain_record(replace(entry.record, labels=dict(labels))))
    _put_entry(snapshot, entry)
    return entry


def _put_entry(snapshot: Snapshot, entry: StreamEntry) -> None:
    key = entry.record.stream_id.encode()
    snapshot.put("streams", key, encode_json(b"STRM", key, {"number": entry.number, "record": asdict(entry.record)}))


def remove_entry(snapshot: Snapshot, entry: StreamEntry) -> None:
    """Delete the stream at once; what is kept of its blocks is removed by `remove_doomed`."""
    for table in ("states", "policies"):
        snapshot.delete(table, entry.key)
    snapshot.delete("meta", b"head" + entry.key)
    snapshot.delete("streams", entry.record.stream_id.encode())
    snapshot.put("doomed", entry.key, b"")


def remove_doomed(snapshot: Snapshot, limit: int) -> bool:
    """Remove up to `limit` values of deleted streams; whether more are left."""
    for number, _ in snapshot.scan("doomed", b""):
        for table in PER_BLOCK:
            keys = [key for key, _ in itertools.islice(snapshot.scan(table, number), limit)]
            for key in keys:
                snapshot.delete(table, key)
            limit -= len(keys)
            if limit <= 0:
                return True
        snapshot.delete("doomed", number)
        return True
    return False


def get_head(snapshot: Snapshot, entry: StreamEntry) -> StreamHead | None:
    """None while the stream has no block."""
    value = snapshot.get("meta", b"head" + entry.key)
    if value is None:
        _check_no_blocks(snapshot, entry)
        return None
    with naming(entry, "totals"):
        return decode_json(b"HEAD", entry.key, value, _made_head)


def _made_head(fields: Any) -> StreamHead:
    layout = fields["layout"] | {"dtype": _DTYPES[fields["layout"]["dtype"]]}
    return StreamHead(
        stats=StreamStats(**fields["stats"]),
        layout=KvLayout(**layout),
        summary_shape=tuple(fields["summary_shape"]),
        live=tuple(itertools.starmap(range, fields.get("live", [[0, fields["stats"]["num_blocks"]]]))),
        aged_to=fields.get("aged_to", 0),
    )


def _check_no_blocks(snapshot: Snapshot, entry: StreamEntry) -> None:
    """A stream without totals has a state without blocks, or none. Raises: CorruptRecord."""
    state = snapshot.get("states", entry.key)
    if state is not None:
        with naming(entry, "state or totals"):
            if decode_state(entry.key, state).num_blocks:
                raise CorruptRecord("its state speaks of blocks, and its totals are missing")


def put_head(snapshot: Snapshot, entry: StreamEntry, head: StreamHead) -> None:
    layout = {name: getattr(head.layout, name) for name in ("num_layers", "num_heads", "block_size", "head_dim")}
    fields = {
        "stats": asdict(head.stats),
        "layout": layout | {"dtype": head.layout.dtype.name},
        "summary_shape": head.summary_shape,
        "live": [[blocks.start, blocks.stop] for blocks in head.live],
        "aged_to": head.aged_to,
    }
    snapshot.put("meta", b"head" + entry.key, encode_json(b"HEAD", entry.key, fields))


def num_blocks(head: StreamHead | None) -> int:
    return head.stats.num_blocks if head else 0


def live_blocks(head: StreamHead | None) -> tuple[range, ...]:
    return head.live if head else ()


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
            f"the stored {what} of {whose}stream {entry.record.stream_id!r} fails its checksum: cacheflow store "
            "verify --repair keeps the rest",
            stream_id=entry.record.stream_id,
            block_idx=block_idx,
        ) from error


def overlapping(snapshot: Snapshot, entry: StreamEntry, live: Sequence[range], time_range: TimeRange) -> range:
    """From the first to the last live block that overlaps the range; both ends of blocks grow with their number."""
    found = []
    for blocks in live:
        first = bisect.bisect_left(blocks, time_range.start_s, key=lambda at: block_totals(snapshot, entry, at).end_s)
        stop = bisect.bisect_right(blocks, time_range.end_s, key=lambda at: block_totals(snapshot, entry, at).start_s)
        if first < stop:
            found.append(range(blocks[first], blocks[stop - 1] + 1))
    return range(found[0].start, found[-1].stop) if found else range(0)


def with_block(live: Sequence[range], block_idx: int) -> tuple[range, ...]:
    """The live ranges and one block behind them."""
    if live and live[-1].stop == block_idx:
        return (*live[:-1], range(live[-1].start, block_idx + 1))
    return (*live, range(block_idx, block_idx + 1))


def within(live: Sequence[range], blocks: range) -> list[range]:
    """The live ones of consecutive `blocks`, as ascending ranges."""
    cut = (range(max(own.start, blocks.start), min(own.stop, blocks.stop)) for own in live)
    return [own for own in cut if own]


def check_block_idxs(stream_id: str, block_idxs: Any, count: int, live: Sequence[range] | None = None) -> list[int]:
    """`block_idxs` as ints.

    Args:
        live: None: all of 0..count-1.

    Raises:
        BlockNotFound: one is not in 0..count-1, or deleted.
    """
    checked = [int(block_idx) for block_idx in np.asarray(block_idxs, dtype=object).ravel()]
    for block_idx in checked:
        if not 0 <= block_idx < count:
            raise BlockNotFound(
                f"stream {stream_id!r} has no block {block_idx}: its {count} blocks count from 0",
                stream_id=stream_id,
                block_idx=block_idx,
            )
        if live is not None and not any(block_idx in blocks for blocks in live):
            raise BlockNotFound(
                f"block {block_idx} of stream {stream_id!r} was deleted, as its retention says: ask for newer ones",
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
    codec_of(settings)
    return StreamRecord(
        stream_id=record.stream_id,
        fingerprint=record.fingerprint,
        settings=settings,
        labels=dict(record.labels),
        created_s=record.created_s,
        tenant=record.tenant,
    )


def decode_entry(key: bytes, value: memoryview) -> StreamEntry:
    """Raises: CorruptRecord."""

    def made(fields: Any) -> StreamEntry:
        return StreamEntry(number=fields["number"], record=StreamRecord(**fields["record"]))

    return decode_json(b"STRM", key, value, made)
