"""What can be told of streams without a model."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch

from cacheflow_ray.engine.ingesting import Source
from cacheflow_ray.engine.protocol import BlockStore
from cacheflow_ray.engine.reports import BlockView, StreamInfo
from cacheflow_ray.engine.sessions import Position, position_at
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.errors import UsageError
from memory_store.records import StreamRecord


def stream_name(source: Source) -> str:
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
    stats, stored = store.stats(record.stream_id), store.load_state(record.stream_id)
    state = EncoderState.from_bytes(stored.payload, torch.device("cpu")) if stored and stored.payload else None
    counters = state.counters if state else None
    return StreamInfo(
        stream=record.stream_id,
        model=str(record.settings.get("model", "")),
        fingerprint=record.fingerprint,
        settings=dict(record.settings),
        labels=dict(record.labels),
        created_s=record.created_s,
        complete=bool(state and state.complete),
        warning=state.warning if state else None,
        frames=counters.frames if counters else 0,
        tokens_seen=counters.tokens_seen if counters else 0,
        tokens_kept=counters.tokens_kept if counters else 0,
        blocks=stats.num_blocks - stats.num_deleted,
        tail_tokens=len(state.tail) if state else 0,
        num_bytes=stats.num_bytes,
        start_s=stats.start_s,
        end_s=stats.end_s,
        grid=state.grid if state else (0, 0),
        frames_per_unit=state.frames_per_unit if state else 1,
    )


def stream_position(store: BlockStore, stream_id: str) -> Position:
    """How far a stream has come. Raises: StreamNotFound."""
    stored = store.load_state(stream_id)
    if stored is None or not stored.payload:
        return Position(next_seq=0)
    return position_at(EncoderState.from_bytes(stored.payload, torch.device("cpu")), stored.num_blocks)


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
