"""What a repair does inside a transaction: quarantine, removal, counting anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from memory_store import catalog, committing, lookup, retention
from memory_store.blobs import Snapshot
from memory_store.catalog import PER_BLOCK, StreamEntry, StreamHead
from memory_store.codec import layer_bytes, verify_layers
from memory_store.errors import CorruptRecord
from memory_store.records import StreamStats
from memory_store.values import SummaryHeader, encode_summary


def quarantine(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> None:
    """Remove KV that fails; its block stays as a summary, and `KvDropped` tells "corrupt". No KV: nothing to do."""
    head = catalog.get_head(snapshot, entry)
    if head is None or not catalog.within(head.live, range(block_idx, block_idx + 1)):
        return
    if snapshot.get("blocks", entry.block_key(block_idx)) is None and not _absent(snapshot, entry, block_idx):
        remove_block(snapshot, entry, block_idx)
    else:
        catalog.put_head(snapshot, entry, retention.drop_kv(snapshot, entry, head, block_idx, why="corrupt"))


def quarantine_failing(snapshot: Snapshot, stream_id: str, block_idx: int) -> None:
    """Quarantine KV that fails when it is read once more: what failed may have been another's memory, not the disk."""
    entry = catalog.find_entry(snapshot, stream_id)
    if entry is not None and not _absent(snapshot, entry, block_idx):
        try:
            header, value = lookup.block_header(snapshot, entry, block_idx)
            verify_layers(header, layer_bytes(header, value), 0)
        except CorruptRecord:
            quarantine(snapshot, entry, block_idx)


def blank_summary(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> None:
    """A summary of zeros, which no search prefers, from the block's tokens; without those, the block is removed."""
    head = catalog.get_head(snapshot, entry)
    if head is None:
        return
    try:
        tokens = lookup.block_tokens(snapshot, entry, block_idx)
    except CorruptRecord:
        remove_block(snapshot, entry, block_idx)
        return
    key, has_thumbnail = entry.block_key(block_idx), snapshot.get("thumbnails", entry.block_key(block_idx)) is not None
    vectors = np.zeros(head.summary_shape, np.float32)
    num_bytes = sum(len(value) for table in ("blocks", "thumbnails") if (value := snapshot.get(table, key)) is not None)
    totals = SummaryHeader(
        start_s=float(tokens["timestamp_s"][0]),
        end_s=float(tokens["timestamp_s"][-1]),
        num_tokens=len(tokens),
        num_bytes=num_bytes + vectors.nbytes,
        thumbnail=has_thumbnail,
    )
    snapshot.put("summaries", key, encode_summary(key, totals, vectors))


def remove_block(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> None:
    """All that is kept of a block; the totals are to be counted anew."""
    for table in PER_BLOCK:
        snapshot.delete(table, entry.block_key(block_idx))


def remove_thumbnail(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> None:
    """And tell the summary, so that nobody misses it."""
    key = entry.block_key(block_idx)
    snapshot.delete("thumbnails", key)
    try:
        totals = catalog.block_totals(snapshot, entry, block_idx)
        vectors = lookup.summary_vectors(snapshot, entry, block_idx, None).copy()
    except CorruptRecord:
        return  # the summary's own mend tells
    snapshot.put("summaries", key, encode_summary(key, replace(totals, thumbnail=False), vectors))


def remove_age(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> None:
    snapshot.delete("ages", entry.block_key(block_idx))


#: What fails -> what mends it, and how that is told.
MENDS: dict[str, tuple[Callable[..., None], str]] = {
    "kv": (quarantine, "quarantined: only the summary is kept, re-encode needed"),
    "summary": (blank_summary, "made blank: no search finds the block"),
    "thumbnail": (remove_thumbnail, "removed"),
    "age": (remove_age, "removed: limits of age pass the block by"),
}


def counted(snapshot: Snapshot, entry: StreamEntry) -> StreamHead | None:
    """A stream's head, from its summaries; None where there are none.

    Raises:
        CorruptRecord: a summary or note of absence fails, or no block tells the layout.
    """
    stats: StreamStats | None = None
    live: tuple[range, ...] = ()
    absent = 0
    for key, _ in snapshot.scan("summaries", entry.key):
        block_idx = int.from_bytes(key[4:8], "big")
        totals = catalog.block_totals(snapshot, entry, block_idx)
        gone = retention.absence(snapshot, entry, block_idx)
        if gone is not None:
            absent += 1
            totals = replace(totals, num_bytes=totals.num_bytes - gone[1])
        stats, live = committing.extended(stats, totals), catalog.with_block(live, block_idx)
    if stats is None:
        return None
    known = _known_head(snapshot, entry, live)
    state = committing.get_state(snapshot, entry)
    num_blocks = max(live[-1].stop, state.num_blocks if state else 0)
    stats = replace(stats, num_blocks=num_blocks, num_deleted=num_blocks - sum(map(len, live)), num_absent=absent)
    return replace(known, stats=stats, live=live)


def recount(snapshot: Snapshot, entry: StreamEntry) -> None:
    """Put the totals that are so. Raises: CorruptRecord."""
    head = counted(snapshot, entry)
    if head is None:
        snapshot.delete("meta", b"head" + entry.key)
    else:
        catalog.put_head(snapshot, entry, head)


def _known_head(snapshot: Snapshot, entry: StreamEntry, live: Sequence[range]) -> StreamHead:
    """The stored head, or one with the layout of the first block that has KV."""
    try:
        head = catalog.get_head(snapshot, entry)
    except CorruptRecord:
        head = None
    if head is not None:
        return head
    for block_idx in (at for blocks in live for at in blocks):
        if not _absent(snapshot, entry, block_idx):
            header, _ = lookup.block_header(snapshot, entry, block_idx)
            shape = lookup.summary_vectors(snapshot, entry, block_idx, None).shape
            stats = StreamStats(num_blocks=0, num_tokens=0, num_bytes=0)
            return StreamHead(
                stats=stats, layout=header.layout, summary_shape=(shape[0], shape[1], shape[2], shape[3]), live=()
            )
    raise CorruptRecord(f"no block of stream {entry.record.stream_id!r} has KV that tells its layout")


def _absent(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> bool:
    return retention.absence(snapshot, entry, block_idx) is not None


def orphans(snapshot: Snapshot) -> dict[str, list[bytes]]:
    """Keys, by table, of streams that are not there (and not just deleted) or of blocks that are not live."""
    doomed = {number for number, _ in snapshot.scan("doomed", b"")}
    live: dict[bytes, tuple[range, ...] | None] = {}
    for key, value in snapshot.scan("streams", b""):
        try:
            entry = catalog.decode_entry(key, value)
            live[entry.key] = catalog.live_blocks(catalog.get_head(snapshot, entry))
        except CorruptRecord:
            return {}  # what belongs to a stream that cannot be read must not be taken for an orphan
    found: dict[str, list[bytes]] = {}
    for table in (*PER_BLOCK, "states", "policies"):
        for key, _ in snapshot.scan(table, b""):
            number, at = key[:4], int.from_bytes(key[4:8], "big")
            known = number in live and (len(key) == 4 or any(at in blocks for blocks in live[number] or ()))
            if not known and number not in doomed:
                found.setdefault(table, []).append(key)
    return found


def remove(snapshot: Snapshot, table: str, keys: Sequence[bytes]) -> None:
    for key in keys:
        snapshot.delete(table, key)
