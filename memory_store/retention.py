"""What a stream's retention lets go: whole blocks, oldest first, and the KV of blocks that have grown old."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from memory_store.blobs import Snapshot
from memory_store.catalog import (
    PER_BLOCK,
    StreamEntry,
    StreamHead,
    block_totals,
    get_head,
    naming,
    overlapping,
    put_head,
    within,
)
from memory_store.codec import decode_header
from memory_store.errors import CorruptRecord
from memory_store.records import Retention, TimeRange
from memory_store.values import decode, decode_json, encode_json, seal

_AGE = struct.Struct("<d")

#: Blocks one transaction lets go at most, so that none takes long.
BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LetGo:
    """What one step did: blocks it deleted, blocks whose KV it dropped, and whether more is over a limit."""

    head: StreamHead
    deleted: tuple[int, ...]
    aged: tuple[int, ...]
    more: bool


def get_policy(snapshot: Snapshot, entry: StreamEntry) -> Retention | None:
    value = snapshot.get("policies", entry.key)
    if value is None:
        return None
    with naming(entry, "retention"):
        return decode_json(b"KEEP", entry.key, value, _made_policy)


def _made_policy(fields: Any) -> Retention:
    pinned = tuple(TimeRange(start_s=start_s, end_s=end_s) for start_s, end_s in fields.pop("pinned"))
    return Retention(**fields, pinned=pinned)


def put_policy(snapshot: Snapshot, entry: StreamEntry, policy: Retention) -> None:
    """And look at every block anew: what was pinned may be so no more."""
    head = get_head(snapshot, entry)
    if head is not None:
        put_head(snapshot, entry, replace(head, aged_to=0))
    fields = asdict(policy) | {"pinned": [(own.start_s, own.end_s) for own in policy.pinned]}
    snapshot.put("policies", entry.key, encode_json(b"KEEP", entry.key, fields))


def put_age(snapshot: Snapshot, key: bytes, stored_s: float) -> None:
    snapshot.put("ages", key, seal(b"AGED", key, _AGE.pack(stored_s)))


def stored_s(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> float:
    """When a block was stored, Unix time; infinity where that was not kept: no limit of age touches it then."""
    key = entry.block_key(block_idx)
    value = snapshot.get("ages", key)
    if value is None:
        return math.inf
    with naming(entry, "age", block_idx):
        age: float = decode(b"AGED", key, value, _AGE.unpack)[0]
    return age


def enforce(snapshot: Snapshot, entry: StreamEntry, head: StreamHead, policy: Retention, now_s: float) -> LetGo:
    """One step, within a writing transaction; the head it gives must be put. What fails its checksum goes as well."""
    free = _may_go(snapshot, entry, head, policy)
    deleted: list[int] = []
    aged: list[int] = []
    for block_idx in _each(free):
        due = _too_much(head, policy) or _is_due(snapshot, entry, block_idx, policy.ttl_s, now_s)
        if due and len(deleted) == BATCH:
            return LetGo(head=head, deleted=tuple(deleted), aged=(), more=True)
        if due:
            head = _delete(snapshot, entry, head, block_idx)
            deleted.append(block_idx)
        elif due is False:
            break
    not_aged = range(head.aged_to, head.stats.num_blocks)
    for block_idx in _each([part for own in free for part in within(head.live, own) if part.stop > not_aged.start]):
        if block_idx not in not_aged:
            continue
        due = _is_due(snapshot, entry, block_idx, policy.summary_only_after_s, now_s)
        if due and len(aged) == BATCH:
            return LetGo(head=head, deleted=tuple(deleted), aged=tuple(aged), more=True)
        if due and snapshot.get("blocks", entry.block_key(block_idx)) is not None:
            head = drop_kv(snapshot, entry, head, block_idx, why="aged")
            aged.append(block_idx)
        elif due is False:
            break
        head = replace(head, aged_to=block_idx + 1)
    return LetGo(head=head, deleted=tuple(deleted), aged=tuple(aged), more=False)


def _is_due(snapshot: Snapshot, entry: StreamEntry, block_idx: int, age_s: float | None, now_s: float) -> bool | None:
    """Whether a block has the age; None where its age is not known, which says nothing of those behind it."""
    if age_s is None:
        return False
    try:
        stored = stored_s(snapshot, entry, block_idx)
    except CorruptRecord:
        return None
    return None if stored == math.inf else stored + age_s <= now_s


def drop_kv(snapshot: Snapshot, entry: StreamEntry, head: StreamHead, block_idx: int, *, why: str) -> StreamHead:
    """Keep all of a block but its KV; a block that has none stays as it is.

    Args:
        why: "aged" or "corrupt", as `KvDropped` tells it.
    """
    key = entry.block_key(block_idx)
    value = snapshot.get("blocks", key)
    if value is None:
        return head
    try:
        tokens = decode_header(value, stream_id=entry.record.stream_id, block_idx=block_idx).tokens
        snapshot.put("tokens", key, seal(b"TOKS", key, tokens.tobytes()))
    except CorruptRecord:
        why = "corrupt"
    num_bytes = len(value)
    snapshot.put("absent", key, encode_json(b"GONE", key, {"why": why, "num_bytes": num_bytes}))
    snapshot.delete("blocks", key)
    stats = replace(head.stats, num_bytes=head.stats.num_bytes - num_bytes, num_absent=head.stats.num_absent + 1)
    return replace(head, stats=stats)


def absence(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> tuple[str, int] | None:
    """Why a block has no KV and how many bytes went with it; None where it has its KV."""
    key = entry.block_key(block_idx)
    value = snapshot.get("absent", key)
    if value is None:
        return None
    with naming(entry, "note of absence", block_idx):
        return decode_json(b"GONE", key, value, lambda fields: (str(fields["why"]), int(fields["num_bytes"])))


def _may_go(snapshot: Snapshot, entry: StreamEntry, head: StreamHead, policy: Retention) -> list[range]:
    """Live blocks that are neither among the last W nor pinned."""
    window = entry.record.settings.get("window_blocks")
    keep = max(1, window) if isinstance(window, int) else 1
    free = list(head.live)
    while free and keep:
        last = free.pop()
        kept = min(keep, len(last))
        keep -= kept
        if kept < len(last):
            free.append(last[:-kept])
    for time_range in policy.pinned:
        pinned = overlapping(snapshot, entry, head.live, time_range)
        free = [
            part
            for own in free
            for part in (range(own.start, min(own.stop, pinned.start)), range(max(own.start, pinned.stop), own.stop))
            if part
        ] if pinned else free  # fmt: skip
    return free


def _each(ranges: list[range]) -> Iterator[int]:
    for blocks in ranges:
        yield from blocks


def _too_much(head: StreamHead, policy: Retention) -> bool:
    num_live = head.stats.num_blocks - head.stats.num_deleted
    return (policy.max_blocks is not None and num_live > policy.max_blocks) or (
        policy.max_bytes is not None and head.stats.num_bytes > policy.max_bytes
    )


def _delete(snapshot: Snapshot, entry: StreamEntry, head: StreamHead, block_idx: int) -> StreamHead:
    """Remove a block of the first live range, or one before it that is no longer pinned."""
    num_tokens, num_bytes = _held(snapshot, entry, head, block_idx)
    was_absent = snapshot.get("absent", entry.block_key(block_idx)) is not None
    for table in PER_BLOCK:
        snapshot.delete(table, entry.block_key(block_idx))
    live = [
        part
        for own in head.live
        for part in (range(own.start, min(own.stop, block_idx)), range(max(own.start, block_idx + 1), own.stop))
        if part
    ]
    stats = replace(
        head.stats,
        num_bytes=head.stats.num_bytes - num_bytes,
        num_tokens=head.stats.num_tokens - num_tokens,
        start_s=_start(snapshot, entry, live[0].start, head.stats.start_s),
        num_deleted=head.stats.num_deleted + 1,
        num_absent=head.stats.num_absent - was_absent,
    )
    return replace(head, stats=stats, live=tuple(live))


def _held(snapshot: Snapshot, entry: StreamEntry, head: StreamHead, block_idx: int) -> tuple[int, int]:
    """Tokens and bytes of a live block; from what is there, where its totals or its note of absence fail."""
    try:
        totals, gone = block_totals(snapshot, entry, block_idx), absence(snapshot, entry, block_idx)
        return totals.num_tokens, totals.num_bytes - (gone[1] if gone else 0)
    except CorruptRecord:
        values = (snapshot.get(table, entry.block_key(block_idx)) for table in ("blocks", "thumbnails"))
        vectors = 4 * math.prod(head.summary_shape)
        return head.layout.block_size, vectors + sum(len(value) for value in values if value is not None)


def _start(snapshot: Snapshot, entry: StreamEntry, block_idx: int, otherwise: float | None) -> float | None:
    try:
        return block_totals(snapshot, entry, block_idx).start_s
    except CorruptRecord:
        return otherwise
