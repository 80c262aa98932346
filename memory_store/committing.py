"""What a commit must satisfy, and how it changes the tables inside one transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from memory_store.blobs import Snapshot
from memory_store.catalog import (
    StreamEntry,
    StreamHead,
    get_entry,
    get_head,
    live_blocks,
    naming,
    num_blocks,
    put_head,
    with_block,
    within,
)
from memory_store.codec import KvLayout, encode_block
from memory_store.errors import BlockConflict, CorruptRecord, EpochFenced, InvalidRecord, StreamExists
from memory_store.lookup import block_tokens
from memory_store.quantize import codec_of
from memory_store.records import Array, Block, Commit, StreamRecord, StreamState, StreamStats
from memory_store.retention import enforce, get_policy, put_age
from memory_store.values import SummaryHeader, decode_state, encode_state, encode_summary, seal


def apply_commit(snapshot: Snapshot, commit: Commit, now_s: float) -> None:
    """Raises: StreamNotFound, EpochFenced, BlockConflict, InvalidRecord, CorruptRecord."""
    entry = get_entry(snapshot, commit.stream_id)
    check_epoch(commit, get_state(snapshot, entry))
    head = get_head(snapshot, entry)
    for block in commit.blocks:
        count = num_blocks(head)
        check_place(commit, block, count)
        if head and block.block_idx < count:
            if within(head.live, range(block.block_idx, block.block_idx + 1)):  # or it has come and gone
                check_same_tokens(block, block_tokens(snapshot, entry, block.block_idx))
        else:
            head = _append(snapshot, entry, head, block)
            put_age(snapshot, entry.block_key(block.block_idx), now_s)
    check_count(commit, num_blocks(head))
    if head and commit.blocks:
        put_head(snapshot, entry, _retained(snapshot, entry, head, now_s))
    snapshot.put("states", entry.key, encode_state(entry.key, commit.state))


def _retained(snapshot: Snapshot, entry: StreamEntry, head: StreamHead, now_s: float) -> StreamHead:
    """The head once retention has had its way; as it is where what fails its checksum is in the way."""
    try:
        policy = get_policy(snapshot, entry)
        if policy is None:
            return head
        with snapshot.nested() as inner:
            return enforce(inner, entry, head, policy, now_s).head
    except CorruptRecord:
        return head  # `verify` tells


def get_state(snapshot: Snapshot, entry: StreamEntry) -> StreamState | None:
    value = snapshot.get("states", entry.key)
    if value is None and get_head(snapshot, entry) is not None:
        raise CorruptRecord(
            f"the state of stream {entry.record.stream_id!r} is missing: restore a snapshot, or delete the stream and "
            "ingest it again",
            stream_id=entry.record.stream_id,
        )
    if value is None:
        return None
    with naming(entry, "state"):
        return decode_state(entry.key, value)


def _append(snapshot: Snapshot, entry: StreamEntry, head: StreamHead | None, block: Block) -> StreamHead:
    """Write the stream's next block and return the head that counts it."""
    check_like_others(block, (head.layout, head.summary_shape) if head else None, head.stats if head else None)
    key = entry.block_key(block.block_idx)
    value = encode_block(block, entry.record.fingerprint, codec_of(entry.record.settings))
    thumbnail = b"" if block.thumbnail is None else seal(b"THUM", key, block.thumbnail)
    start_s, end_s = span(block)
    totals = SummaryHeader(
        start_s=start_s,
        end_s=end_s,
        num_tokens=len(block.tokens),
        num_bytes=value.nbytes + len(thumbnail) + block.summary.nbytes,
        thumbnail=block.thumbnail is not None,
    )
    snapshot.put("blocks", key, value)
    snapshot.put("summaries", key, encode_summary(key, totals, block.summary))
    if thumbnail:
        snapshot.put("thumbnails", key, thumbnail)
    shape = block.summary.shape
    return StreamHead(
        stats=extended(head.stats if head else None, totals),
        layout=KvLayout.of(block.kv),
        summary_shape=(shape[0], shape[1], shape[2], shape[3]),
        live=with_block(live_blocks(head), block.block_idx),
        aged_to=head.aged_to if head else 0,
    )


def extended(stats: StreamStats | None, block: SummaryHeader) -> StreamStats:
    """Totals with one more block."""
    if stats is None or not stats.num_blocks:
        stats = StreamStats(num_blocks=0, num_tokens=0, num_bytes=0, start_s=block.start_s, end_s=block.end_s)
    return replace(
        stats,
        num_blocks=stats.num_blocks + 1,
        num_tokens=stats.num_tokens + block.num_tokens,
        num_bytes=stats.num_bytes + block.num_bytes,
        end_s=block.end_s,
    )


def span(block: Block) -> tuple[float, float]:
    """First and last time in the block, seconds."""
    return float(block.tokens["timestamp_s"][0]), float(block.tokens["timestamp_s"][-1])


def claim(snapshot: Snapshot, entry: StreamEntry) -> int:
    """Make the caller the stream's owner: its epoch, one above the last."""
    state = get_state(snapshot, entry) or StreamState(epoch=0, num_blocks=0, payload=b"")
    state = replace(state, epoch=state.epoch + 1)
    snapshot.put("states", entry.key, encode_state(entry.key, state))
    return state.epoch


def check_epoch(commit: Commit, stored: StreamState | None) -> None:
    if stored and commit.state.epoch < stored.epoch:
        raise EpochFenced(
            f"stream {commit.stream_id!r} has moved to owner {stored.epoch}, owner {commit.state.epoch} may not write "
            "it: stop writing and reload its state",
            stream_id=commit.stream_id,
            epoch=commit.state.epoch,
            stored_epoch=stored.epoch,
        )


def check_place(commit: Commit, block: Block, count: int) -> None:
    if block.stream_id != commit.stream_id:
        raise _invalid(block, f"it came in a commit of stream {commit.stream_id!r}")
    if block.block_idx > count:
        raise _invalid(block, f"the next one is {count}: blocks may not leave a gap")


def check_count(commit: Commit, count: int) -> None:
    if commit.state.num_blocks != count:
        raise InvalidRecord(
            f"the state of stream {commit.stream_id!r} speaks of {commit.state.num_blocks} blocks, but there are "
            f"{count} after the commit",
            stream_id=commit.stream_id,
        )


def check_same_tokens(block: Block, stored: Array) -> None:
    if not np.array_equal(block.tokens, stored):
        raise BlockConflict(
            f"block {block.block_idx} of stream {block.stream_id!r} is stored with other tokens: "
            "reload the stream's state",
            stream_id=block.stream_id,
            block_idx=block.block_idx,
        )


def check_like_others(block: Block, layout: tuple[KvLayout, Any] | None, stats: StreamStats | None) -> None:
    """A stream's blocks share shapes and dtype, and time never goes back from token to token."""
    if not np.isfinite(block.tokens["timestamp_s"]).all():
        raise _invalid(block, "a token's timestamp is not finite")
    if 0 in block.kv.shape or 0 in block.summary.shape:
        raise _invalid(block, f"KV {block.kv.shape} or summary {block.summary.shape} is empty")
    if layout is not None and layout != (KvLayout.of(block.kv), block.summary.shape):
        raise _invalid(block, f"{block.kv.dtype} {block.kv.shape} with summary {block.summary.shape} is unlike block 0")
    start_s = span(block)[0]
    if (np.diff(block.tokens["timestamp_s"]) < 0).any():
        raise _invalid(block, "its tokens' timestamps go back in time")
    if stats is not None and stats.end_s is not None and start_s < stats.end_s:
        raise _invalid(block, f"it starts at {start_s} s, before the end of the last one at {stats.end_s} s")


def check_same_stream(asked: StreamRecord, stored: StreamRecord) -> None:
    """Raise StreamExists, naming the fields that differ, unless both have the same immutable fields."""
    names = sorted(set(asked.settings) | set(stored.settings))
    missing = object()
    differing = [name for name in ("tenant", "fingerprint") if getattr(asked, name) != getattr(stored, name)]
    differing += [
        f"settings.{name}" for name in names if asked.settings.get(name, missing) != stored.settings.get(name, missing)
    ]
    if differing:
        raise StreamExists(
            f"stream {stored.stream_id!r} exists with another {', '.join(differing)}: use another name or delete it",
            stream_id=stored.stream_id,
            fields=differing,
        )


def _invalid(block: Block, what: str) -> InvalidRecord:
    return InvalidRecord(
        f"block {block.block_idx} of stream {block.stream_id!r} cannot be stored: {what}",
        stream_id=block.stream_id,
        block_idx=block.block_idx,
    )
