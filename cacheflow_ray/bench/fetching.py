"""Stored blocks into model memory, verified, against a plain copy of the same bytes; and turning their keys in place.

bytes that must move    read the stored block once, write it once: what a memcpy does
beside them             one xxh3 of every byte (about 8 GB/s on one core), while it is in the cache
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

import numpy as np
import torch

from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.measure import interleaved, medians, memcpy
from cacheflow_ray.bench.results import Part, Roofline
from cacheflow_ray.bench.synthetic import Memory, block_bytes, fill
from cacheflow_ray.core.rehydrate import rotate
from cacheflow_ray.engine.rehydration import fetch
from cacheflow_ray.models import VideoModel
from cacheflow_ray.models.context import Context
from memory_store import Store

NUM_BLOCKS = 64

#: Stored, of which NUM_BLOCKS are read: retrieved blocks do not lie side by side.
_NUM_STORED = 79

#: Query tokens that would be turned once per block, were the keys left as they are.
_QUESTION_TOKENS = 32

#: Operations per element: each is a product plus a product.
_ROTATE_FLOPS = 3


def measure_fetch(bench: Bench) -> Part:
    """`fetch_over_memcpy` (two threads), the same of one thread, and `rotate_over_memcpy`, all from the page cache."""
    model = bench.model
    bench.need_space(_NUM_STORED * block_bytes(model))
    bench.note(f"fetching {NUM_BLOCKS} blocks of {block_bytes(model) / 2**20:.2f} MiB")
    folder = bench.subfolder("fetch")
    try:
        with Store.open(folder) as store:
            memory = Memory(
                stream="fetch", num_blocks=_NUM_STORED, tail_tokens=1, fps=1.0, keep=0.2, window_blocks=0
            )  # fmt: skip
            fill(store, model, memory)
            return _measured(bench, store)
    finally:
        shutil.rmtree(folder)


def _measured(bench: Bench, store: Store) -> Part:
    model = bench.model
    chosen = np.sort(np.random.default_rng(0).choice(_NUM_STORED, NUM_BLOCKS, replace=False)).tolist()
    num_tokens = NUM_BLOCKS * model.default_block_size
    context = model.context(model.prefix.length + num_tokens)
    kv_bytes = NUM_BLOCKS * block_bytes(model)
    runs = {
        "memcpy": memcpy(kv_bytes),
        "one_thread": _fetching(store, model, context, chosen, threads=1),
        "two_threads": _fetching(store, model, context, chosen, threads=2),
        "memcpy_keys": memcpy(kv_bytes // 2),
        "rotate": _turning(context, num_tokens),
        "rotate_queries": _turning_queries(model),
    }
    times = interleaved(runs, bench.sizes.fetch_repeats, bench.device)
    seconds, best = medians(times), {name: min(values) for name, values in times.items()}
    elements = kv_bytes / 2 / model.dtype.itemsize
    return Part(
        ratios={
            "fetch_over_memcpy": seconds["memcpy"] / seconds["two_threads"],
            "fetch_over_memcpy_one_thread": seconds["memcpy"] / seconds["one_thread"],
            "rotate_over_memcpy": seconds["memcpy_keys"] / seconds["rotate"],
        },
        rooflines={
            "fetch_over_memcpy": _moved("64 blocks read, written and hashed", kv_bytes, 0, seconds["two_threads"]),
            "fetch_over_memcpy_one_thread": _moved("the same, one thread", kv_bytes, 0, seconds["one_thread"]),
            "rotate_over_memcpy": _moved(
                "keys of 64 blocks read, turned and written", kv_bytes / 2, _ROTATE_FLOPS * elements, seconds["rotate"]
            ),
        },
        details={
            "kv_bytes": kv_bytes,
            "median_ms": {name: 1e3 * value for name, value in seconds.items()},
            "best_ms": {name: 1e3 * value for name, value in best.items()},
            "question_tokens_turned": _QUESTION_TOKENS,
            "turning_queries_over_turning_keys": best["rotate_queries"] / best["rotate"],
        },
    )


def _moved(what: str, num_bytes: float, num_flops: float, seconds: float) -> Roofline:
    """Every byte is read and written."""
    return Roofline(what=what, num_bytes=2 * num_bytes, num_flops=num_flops, seconds=seconds)


def _fetching(
    store: Store, model: VideoModel, context: Context, chosen: Sequence[int], *, threads: int
) -> Callable[[], None]:
    """The engine's own fetch, opening of the reader (identity and headers) included."""

    def run() -> None:
        context.length = model.prefix.length
        with store.reader("fetch", chosen, fingerprint=model.fingerprint, threads=threads) as reader:
            fetch(reader, context, len(chosen) * model.default_block_size)

    return run


def _turning(context: Context, num_tokens: int) -> Callable[[], None]:
    """The engine's own rotation, computation of the angles included."""
    start = context.length

    def run() -> None:
        context.length = start
        context.turn(torch.arange(start, start + num_tokens)[None])

    return run


def _turning_queries(model: VideoModel) -> Callable[[], None]:
    """The other way: keys stay as stored, and a question's queries are turned to stand right for every block.

    What it would cost beside this is not in it: attention block by block, and the same again for every token generated.
    """
    encoder = model.encoder
    shape = (encoder.num_layers, encoder.num_heads, _QUESTION_TOKENS, encoder.head_dim)
    queries = torch.zeros(shape, dtype=model.dtype, device=model.device)
    angles = torch.zeros((_QUESTION_TOKENS, encoder.head_dim // 2), device=model.device)

    def run() -> None:
        for _ in range(NUM_BLOCKS):
            rotate(queries, angles, angles)

    return run
