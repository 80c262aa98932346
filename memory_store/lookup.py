"""Finding blocks within a snapshot: their headers, a reader over them, and the index of their summaries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memory_store import catalog
from memory_store.blobs import Snapshot
from memory_store.codec import BlockHeader, corrupt, decode_header
from memory_store.errors import BlockNotFound, CorruptRecord, FingerprintMismatch
from memory_store.fetch import BlockReader
from memory_store.index import Indexes, StreamIndex
from memory_store.records import Array
from memory_store.values import decode_summary_vectors, unseal


def checked_blocks(
    snapshot: Snapshot, stream_id: str, block_idxs: Sequence[int]
) -> tuple[catalog.StreamEntry, list[int]]:
    entry = catalog.get_entry(snapshot, stream_id)
    count = catalog.num_blocks(catalog.get_head(snapshot, entry))
    return entry, catalog.check_block_idxs(stream_id, block_idxs, count)


def block_header(snapshot: Snapshot, entry: catalog.StreamEntry, block_idx: int) -> tuple[BlockHeader, memoryview]:
    value = catalog.block_value(snapshot, "blocks", entry, block_idx)
    return decode_header(value, stream_id=entry.record.stream_id, block_idx=block_idx), value


def thumbnail(snapshot: Snapshot, entry: catalog.StreamEntry, block_idx: int) -> bytes | None:
    value = snapshot.get("thumbnails", entry.block_key(block_idx))
    if value is None:
        return None
    with catalog.naming(entry, "thumbnail", block_idx):
        return bytes(unseal(b"THUM", entry.block_key(block_idx), value))


def open_reader(
    snapshot: Snapshot, stream_id: str, block_idxs: Sequence[int], fingerprint: str, threads: int
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
    found = [block_header(snapshot, entry, block_idx) for block_idx in checked]
    for header, _ in found:
        if (header.fingerprint, header.layout) != (fingerprint, head.layout):
            raise corrupt(stream_id, header.block_idx, "it is of another model or shape than the stream")
    return BlockReader(snapshot, head.layout, found, threads)


def loaded_index(
    indexes: Indexes, snapshot: Snapshot, entry: catalog.StreamEntry, head: catalog.StreamHead
) -> StreamIndex:
    """The stream's index with at least all blocks the snapshot has."""

    def load(blocks: range) -> Array:
        return np.stack([_vectors(snapshot, entry, at, head.summary_shape) for at in blocks])

    index = indexes.get(entry.number, head.summary_shape)
    index.extend_to(head.stats.num_blocks, load)
    return index


def _vectors(snapshot: Snapshot, entry: catalog.StreamEntry, block_idx: int, shape: tuple[int, ...]) -> Array:
    value = catalog.block_value(snapshot, "summaries", entry, block_idx)
    with catalog.naming(entry, "summary", block_idx):
        vectors = decode_summary_vectors(entry.block_key(block_idx), value)
        if vectors.shape != shape:
            raise CorruptRecord(f"its shape is {vectors.shape}, not {shape}")
    return vectors
