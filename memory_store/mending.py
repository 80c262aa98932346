"""What a repair does inside a transaction: quarantine, removal, counting anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from memory_store import catalog, committing, lookup, retention, sessions
from memory_store.blobs import Snapshot
from memory_store.catalog import PER_BLOCK, StreamEntry, StreamHead
from memory_store.codec import layer_bytes, verify_layers
from memory_store.errors import CorruptRecord
from memory_store.records import StreamStats
from memory_store.values import SummaryHeader, encode_summary

_GONE = "removed: nothing tells its tokens any more"


def quarantine(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> str:
    """Remove KV that fails, and keep the rest of its block, of which `KvDropped` tells "corrupt".

    Where nothing tells the block's tokens any more, all of it is removed.
    """
    head = catalog.get_head(snapshot, entry)
    if head is None or not catalog.within(head.live, range(block_idx, block_idx + 1)):
        return _GONE
    head = retention.drop_kv(snapshot, entry, head, block_idx, why="corrupt")
    try:
        absent = _absent(snapshot, entry, block_idx)
        lookup.block_tokens(snapshot, entry, block_idx)
    except CorruptRecord:
        absent = False
    if not absent:
        remove_block(snapshot, entry, block_idx)
        recount(snapshot, entry)
        return _GONE
    catalog.put_head(snapshot, entry, head)
    return "only the summary is kept: re-encode needed"


def quarantine_failing(snapshot: Snapshot, stream_id: str, block_idx: int) -> None:
    """Quarantine KV that fails when it is read once more: what failed may have been another's memory, not the disk."""
    entry = catalog.find_entry(snapshot, stream_id)
    if entry is not None and not _absent(snapshot, entry, block_idx):
        try:
            header, value = lookup.block_header(snapshot, entry, block_idx)
            verify_layers(header, layer_bytes(header, value), 0)
        except CorruptRecord:
            quarantine(snapshot, entry, block_idx)


def blank_summary(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> str:
    """A summary of zeros, like nothing that is asked, from the block's tokens; without those, the block is removed."""
    head = catalog.get_head(snapshot, entry)
    if head is None:
        return _GONE
    try:
        tokens = lookup.block_tokens(snapshot, entry, block_idx)
        gone = retention.absence(snapshot, entry, block_idx)
    except CorruptRecord:
        remove_block(snapshot, entry, block_idx)
        return _GONE
    key, has_thumbnail = entry.block_key(block_idx), snapshot.get("thumbnails", entry.block_key(block_idx)) is not None
    vectors = np.zeros(head.summary_shape, np.float32)
    num_bytes = sum(len(value) for table in ("blocks", "thumbnails") if (value := snapshot.get(table, key)) is not None)
    totals = SummaryHeader(
        start_s=float(tokens["timestamp_s"][0]),
        end_s=float(tokens["timestamp_s"][-1]),
        num_tokens=len(tokens),
        num_bytes=num_bytes + vectors.nbytes + (gone[1] if gone else 0),
        thumbnail=has_thumbnail,
    )
    snapshot.put("summaries", key, encode_summary(key, totals, vectors))
    return "made blank: the block ranks as unrelated to anything"


def remove_block(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> None:
    """All that is kept of a block; the totals are to be counted anew."""
    for table in PER_BLOCK:
        snapshot.delete(table, entry.block_key(block_idx))


def remove_thumbnail(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> str:
    """And tell the summary, so that nobody misses it."""
    key = entry.block_key(block_idx)
    snapshot.delete("thumbnails", key)
    try:
        totals = catalog.block_totals(snapshot, entry, block_idx)
        vectors = lookup.summary_vectors(snapshot, entry, block_idx, None).copy()
    except CorruptRecord:
        return "removed"  # the summary's own mend tells
    snapshot.put("summaries", key, encode_summary(key, replace(totals, thumbnail=False), vectors))
    return "removed"


def remove_age(snapshot: Snapshot, entry: StreamEntry, block_idx: int) -> str:
    snapshot.delete("ages", entry.block_key(block_idx))
    return "removed: limits of age pass the block by"


#: What fails -> what mends it and says how.
MENDS: dict[str, Callable[..., str]] = {
    "kv": quarantine,
    "summary": blank_summary,
    "thumbnail": remove_thumbnail,
    "age": remove_age,
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


def recount(snapshot: Snapshot, entry: StreamEntry) -> str:
    """Put the totals that are so. Raises: CorruptRecord."""
    head = counted(snapshot, entry)
    if head is None:
        snapshot.delete("meta", b"head" + entry.key)
    else:
        catalog.put_head(snapshot, entry, head)
    return "counted anew"


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
    """Keys, by table, of streams that are not there (and not just deleted), or of blocks their totals do not count.

    Raises:
        CorruptRecord: streams are hidden by a damaged page, or totals fail: what is theirs is no orphan.
    """
    doomed = {number for number, _ in snapshot.scan("doomed", b"")}
    heads = {entry.key: catalog.get_head(snapshot, entry) for entry in catalog.all_entries(snapshot)}
    found: dict[str, list[bytes]] = {}
    for table in (*PER_BLOCK, "states", "policies"):
        for key, _ in snapshot.scan(table, b""):
            number, block = key[:4], int.from_bytes(key[4:8], "big")
            head = heads.get(number)
            if number in doomed or (number in heads and (len(key) == 4 or head is None)):
                continue
            if head is None or not any(block in blocks for blocks in head.live):
                found.setdefault(table, []).append(key)
    return found


def remove_orphans(snapshot: Snapshot) -> str:
    """Those there are in this very transaction. Raises: CorruptRecord."""
    for table, keys in orphans(snapshot).items():
        for key in keys:
            snapshot.delete(table, key)
    return "removed"


def bad_turns(snapshot: Snapshot) -> list[bytes]:
    """Keys of sessions that fail their checksum."""
    return [key for key, value in snapshot.scan("turns", b"s") if not sessions.is_whole(key, value)]


def remove_bad_turns(snapshot: Snapshot) -> str:
    for key in bad_turns(snapshot):
        snapshot.delete("turns", key)
    return "removed"
