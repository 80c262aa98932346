"""Made-up content of a store: an empty one, blocks of random KV, and blocks that hold hardly more than summaries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np

from memory_store import TOKEN_DTYPE, Block, Commit, Store, StreamRecord, StreamState
from memory_store.records import Array

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@contextmanager
def fresh_store(path: Path, *, keep: bool = False) -> Iterator[Store]:
    """An empty store with the stream "bench", deleted afterwards unless `keep`."""
    shutil.rmtree(path, ignore_errors=True)
    with Store.open(path) as store:
        store.create_stream(StreamRecord(stream_id="bench", fingerprint="bench"))
        yield store
    if not keep:
        shutil.rmtree(path)


def make_blocks(shape: tuple[int, int, int, int], count: int) -> list[Block]:
    """Blocks of random bfloat16 KV [L, 2, H, B, D] with one small summary each, numbered from 0."""
    num_layers, heads, num_tokens, head_dim = shape
    rng = np.random.default_rng(0)
    kv_shape = (num_layers, 2, heads, num_tokens, head_dim)
    return [
        Block(
            stream_id="bench",
            block_idx=at,
            tokens=np.zeros(num_tokens, TOKEN_DTYPE),
            kv=rng.standard_normal(kv_shape, np.float32).astype(BFLOAT16),
            summary=np.ones((2, 1, heads, head_dim), np.float32),
        )
        for at in range(count)
    ]


def commit_summaries(store: Store, summaries: Array) -> None:
    """Blocks of hardly any KV with these summaries [N, S, V, H, D]."""
    heads, head_dim = summaries.shape[3:]
    kv = np.zeros((1, 2, heads, 1, head_dim), np.float32)
    tokens = np.zeros(1, TOKEN_DTYPE)
    for first in range(0, len(summaries), 1000):
        stop = min(first + 1000, len(summaries))
        blocks = tuple(
            Block(stream_id="bench", block_idx=at, tokens=tokens, kv=kv, summary=summaries[at])
            for at in range(first, stop)
        )
        state = StreamState(epoch=0, num_blocks=stop, payload=b"")
        store.commit([Commit(stream_id="bench", state=state, blocks=blocks)])
