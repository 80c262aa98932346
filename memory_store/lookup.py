"""Finding blocks within a snapshot: their headers, a reader over them, and the index of their summaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from memory_store import catalog
from memory_store.blobs import Snapshot
from memory_store.codec import BlockHeader, corrupt, decode_header
from memory_store.errors import BlockNotFound, CorruptRecord, FingerprintMismatch, KvDropped
from memory_store.fetch import BlockReader
from memory_store.hot import HotBlocks
from memory_store.index import Indexes, StreamIndex
from memory_store.records import TOKEN_DTYPE, Array
from memory_store.retention import absence
from memory_store.stored import StoredBlock
from memory_store.values import decode, decode_summary_vectors, unseal


def checked_blocks(
    snapshot: Snapshot, stream_id: str, block_idxs: Sequence[int]
) -> tuple[catalog.StreamEntry, list[int]]:
    entry = catalog.get_entry(snapshot, stream_id)
    head = catalog.get_head(snapshot, entry)
    live = catalog.live_blocks(head)
    return entry, catalog.check_block_idxs(stream_id, block_idxs, catalog.num_blocks(head), live)


def block_header(snapshot: Snapshot, entry: catalog.StreamEntry, block_idx: int) -> tuple[BlockHeader, memoryview]:
    value = catalog.block_value(snapshot, "blocks", entry, block_idx)
    return decode_header(value, stream_id=entry.record.stream_id, block_idx=block_idx), value


def block_tokens(snapshot: Snapshot, entry: catalog.StreamEntry, block_idx: int) -> Array:
    """Tokens [B] of a live block, whether its KV is kept or not."""
    key = entry.block_key(block_idx)
    value = snapshot.get("tokens", key)
    if value is None:
        return block_header(snapshot, entry, block_idx)[0].tokens
    with catalog.naming(entry, "tokens", block_idx):
        return decode(b"TOKS", key, value, lambda payload: np.frombuffer(bytearray(payload), TOKEN_DTYPE))


def without_kv(snapshot: Snapshot, entry: catalog.StreamEntry, block_idxs: Sequence[int]) -> dict[int, str]:
    """Those of some live blocks that have no KV, and why ("aged", "corrupt")."""
    found = {block_idx: absence(snapshot, entry, block_idx) for block_idx in block_idxs}
    return {block_idx: gone[0] for block_idx, gone in found.items() if gone}


def thumbnail(snapshot: Snapshot, entry: catalog.StreamEntry, block_idx: int) -> bytes | None:
    if (
        snapshot.get("thumbnails", entry.block_key(block_idx)) is None
        and not catalog.block_totals(snapshot, entry, block_idx).thumbnail
    ):
        return None
    value = catalog.block_value(snapshot, "thumbnails", entry, block_idx)
    with catalog.naming(entry, "thumbnail", block_idx):
        return bytes(unseal(b"THUM", entry.block_key(block_idx), value))


def open_reader(
    snapshot: Snapshot,
    stream_id: str,
    block_idxs: Sequence[int],
    fingerprint: str,
    threads: int,
    hot: HotBlocks,
    spoilt: Callable[[int], None],
) -> BlockReader:
    entry, checked = checked_blocks(snapshot, stream_id, block_idxs)
    head = catalog.get_head(snapshot, entry)
    if head is None:
        raise BlockNotFound(f"stream {stream_id!r} has no blocks yet: ingest more", stream_id=stream_id)
    if fingerprint != entry.record.fingerprint:
        raise FingerprintMismatch(
            f"the KV of stream {stream_id!r} is of model {entry.record.fingerprint}, not {fingerprint}: "
            "open it with the model that made it",
            stream_id=stream_id,
        )
    if gone := without_kv(snapshot, entry, checked):
        raise KvDropped(
            f"of block(s) {', '.join(map(str, gone))} of stream {stream_id!r} only the summary is kept "
            f"({', '.join(sorted(set(gone.values())))}): re-encode needed",
            stream_id=stream_id,
            block_idxs=sorted(gone),
            why=gone,
        )
    # Looking a value up brings all of it in from the disk: in key order, so that the disk is swept once.
    found = {block_idx: _hot_or_stored(snapshot, entry, block_idx, hot) for block_idx in sorted(set(checked))}
    for block in found.values():
        if (block.header.fingerprint, block.header.layout) != (fingerprint, head.layout):
            raise corrupt(stream_id, block.header.block_idx, "it is of another model or shape than the stream")
    blocks = [found[block_idx] for block_idx in checked]
    return BlockReader(snapshot, head.layout, blocks, threads, partial(hot.keep, entry.number), spoilt)


def _hot_or_stored(snapshot: Snapshot, entry: catalog.StreamEntry, block_idx: int, hot: HotBlocks) -> StoredBlock:
    return hot.get(entry.number, block_idx) or StoredBlock(*block_header(snapshot, entry, block_idx))


def loaded_index(
    indexes: Indexes, snapshot: Snapshot, entry: catalog.StreamEntry, head: catalog.StreamHead
) -> StreamIndex:
    """The stream's index with at least all blocks the snapshot has."""

    def load(blocks: Sequence[int]) -> Array:
        return np.stack([summary_vectors(snapshot, entry, at, head.summary_shape) for at in blocks])

    index = indexes.get(entry.number, head.summary_shape)
    index.extend_to(head.live, load)
    return index


def summary_vectors(
    snapshot: Snapshot, entry: catalog.StreamEntry, block_idx: int, shape: tuple[int, ...] | None
) -> Array:
    """Vectors [S, V, H, D] float32 of a live block, of that shape if one is given. Raises: CorruptRecord."""
    value = catalog.block_value(snapshot, "summaries", entry, block_idx)
    with catalog.naming(entry, "summary", block_idx):
        vectors = decode_summary_vectors(entry.block_key(block_idx), value)
        if shape is not None and vectors.shape != shape:
            raise CorruptRecord(f"its shape is {vectors.shape}, not {shape}")
    return vectors
