"""What can be told of streams without a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse

import numpy as np

from cacheflow_ray.engine.about import about
from cacheflow_ray.engine.position import Position
from cacheflow_ray.engine.protocol import BlockStore
from cacheflow_ray.engine.reports import BlockView, StreamInfo
from cacheflow_ray.errors import UsageError
from memory_store.records import StreamRecord

#: Where a stream's record keeps the address the service reads it from.
SOURCE_URI = "source_uri"

#: Where it keeps what somebody else read the frames from: the service does not go on with that by itself.
READ_FROM = "read_from"


def stream_name(source: str | Path | BinaryIO) -> str:
    """A stream name from a file's: its stem, with '-' for every character a name may not have.

    Raises:
        UsageError: there is nothing to name it after.
    """
    text = str(source) if isinstance(source, str | Path) else str(getattr(source, "name", ""))
    path = urlparse(text).path if "://" in text else text
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem).strip("-._")[:128]
    if not name:
        raise UsageError(f"cannot name a stream after {text!r}: give a name with --stream")
    return name


def stream_info(store: BlockStore, record: StreamRecord) -> StreamInfo:
    """Record, totals and progress of one stream."""
    stats, state = store.stats(record.stream_id), about(store.load_state(record.stream_id))
    return StreamInfo(
        stream=record.stream_id,
        model=str(record.settings.get("model", "")),
        fingerprint=record.fingerprint,
        settings=dict(record.settings),
        labels=dict(record.labels),
        created_s=record.created_s,
        complete=state.complete,
        warning=state.warning,
        frames=state.counters.frames,
        tokens_seen=state.counters.tokens_seen,
        tokens_kept=state.counters.tokens_kept,
        blocks=stats.num_blocks - stats.num_deleted,
        tail_tokens=state.tail_tokens,
        num_bytes=stats.num_bytes,
        start_s=stats.start_s,
        end_s=stats.end_s,
        grid=state.grid,
        frames_per_unit=state.frames_per_unit,
    )


def stream_position(store: BlockStore, stream_id: str) -> Position:
    """How far a stream has come. Raises: StreamNotFound."""
    stored = store.load_state(stream_id)
    return Position.at(about(stored), stored.num_blocks if stored else 0)


def block_views(store: BlockStore, stream_id: str) -> list[BlockView]:
    """Every block kept of a stream, without its KV."""
    times = store.times(stream_id)
    blocks = np.flatnonzero(np.isfinite(times[:, 0])).tolist()  # the others were deleted
    tokens, thumbnails = store.read_tokens(stream_id, blocks), store.read_thumbnails(stream_id, blocks)
    return [
        BlockView(
            block_idx=block_idx,
            start_s=float(times[block_idx, 0]),
            end_s=float(times[block_idx, 1]),
            tokens=tokens[at],
            thumbnail=thumbnails[at],
        )
        for at, block_idx in enumerate(blocks)
    ]
