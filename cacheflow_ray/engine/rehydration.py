"""Stored blocks back into model memory: read once, verified, rotated in place, the tail behind (CacheFlow §3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from cacheflow_ray.engine.arrays import as_array, check_finite
from cacheflow_ray.engine.opened import Backend, OpenedStream
from cacheflow_ray.engine.protocol import BlockReader
from cacheflow_ray.engine.windows import fill_window, load_window, new_window
from cacheflow_ray.models import Segment
from cacheflow_ray.models.context import Context
from memory_store.records import Array

#: One thread copies and verifies at about half the speed of a plain copy; two share the work.
FETCH_THREADS = 2

#: Layers per read on the way to a GPU: fewer leave the reader's threads without enough to do at a time.
GROUP_LAYERS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a context is made of.

    Args:
        blocks: retrieved and window blocks in temporal order.
        num_window: how many of them, at the end, are the local window.
        with_tail: the open tail follows.
        room: columns to keep free for newline, question and answer.
        given: un-rotated KV [L, 2, H, B, D] of those of `blocks` that are not read from the store.
    """

    blocks: tuple[int, ...]
    num_window: int
    with_tail: bool
    room: int
    given: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehydrated:
    """A context ready for a question.

    Args:
        context: filled.
        text_start: position text goes on at.
        fetched_bytes: read from the store.
        tokens: [B] of TOKEN_DTYPE of each block in it, by number.
    """

    context: Context
    text_start: int
    fetched_bytes: int
    tokens: Mapping[int, Array]


def rehydrate(backend: Backend, opened: OpenedStream, plan: Plan) -> Rehydrated:
    """Build the context a plan describes.

    Raises:
        BlockNotFound, CorruptRecord, FingerprintMismatch: from the store; a context is never built without a block.
        InvalidFeatures: the tail's KV holds NaN or infinity.
    """
    model, spec, state = backend.model, opened.spec, opened.state
    tail = state.tail if plan.with_tail and len(state.tail) else None
    start = model.prefix.length
    num_stored = len(plan.blocks) * spec.block_size
    context = model.context(start + num_stored + (len(tail) if tail else 0) + plan.room)
    tokens, read = _bring_in(backend, opened, plan, context)
    tail_kv, read_for_tail = _encode_tail(backend, opened, plan, context, tokens) if tail else (None, 0)
    everything = np.concatenate([*tokens, tail.tokens] if tail else tokens)
    positions, text_start = model.positions(spec.fps).context(everything, start, state.grid)
    context.turn(positions[:, :num_stored])
    if tail_kv is not None:
        context.append(tail_kv, positions[:, num_stored:])
    by_number = dict(zip(plan.blocks, tokens, strict=True))
    return Rehydrated(context=context, text_start=text_start, fetched_bytes=read + read_for_tail, tokens=by_number)


def _bring_in(backend: Backend, opened: OpenedStream, plan: Plan, context: Context) -> tuple[list[Array], int]:
    """Write the plan's blocks into the context's next columns; their tokens, and bytes read."""
    size, name = opened.spec.block_size, opened.stream_id
    tokens: list[Array] = []
    read = 0
    for is_given, part in groupby(plan.blocks, plan.given.__contains__):
        blocks, start = list(part), context.length + len(tokens) * size
        if is_given:
            for place, block_idx in enumerate(blocks):
                columns, kv = slice(start + place * size, start + (place + 1) * size), plan.given[block_idx]
                context.keys[:, :, columns], context.values[:, :, columns] = kv[:, 0], kv[:, 1]
            tokens += backend.store.read_tokens(name, blocks)
            continue
        fingerprint = backend.model.fingerprint
        with backend.store.reader(name, blocks, fingerprint=fingerprint, threads=FETCH_THREADS) as reader:
            read += fetch(reader, context, len(blocks) * size, start)
            tokens += reader.tokens
    return tokens, read


def fetch(reader: BlockReader, context: Context, num_tokens: int, start: int | None = None) -> int:
    """Copy all layers of the reader's blocks, un-rotated, into the context's columns from `start` on; returns bytes.

    Args:
        start: None: the next columns.
    """
    start = context.length if start is None else start
    columns = slice(start, start + num_tokens)
    keys, values = context.keys[:, :, columns], context.values[:, :, columns]
    layers = range(len(keys))
    if not keys.is_cuda:
        return reader.read(layers, as_array(keys), as_array(values))
    return sum(_through_pinned(reader, keys, values))


def _through_pinned(reader: BlockReader, keys: Tensor, values: Tensor) -> Iterator[int]:
    """To a GPU: one group of layers is read into pinned memory while the one before it travels."""
    staging = [torch.empty((GROUP_LAYERS, 2, *keys.shape[1:]), dtype=keys.dtype, pin_memory=True) for _ in range(2)]
    sent = [torch.cuda.Event() for _ in staging]
    for number, start in enumerate(range(0, len(keys), GROUP_LAYERS)):
        group = range(start, min(start + GROUP_LAYERS, len(keys)))
        buffer, event = staging[number % 2][: len(group)], sent[number % 2]
        event.synchronize()
        array = as_array(buffer)
        yield reader.read(group, array[:, 0], array[:, 1])
        keys[group.start : group.stop].copy_(buffer[:, 0], non_blocking=True)
        values[group.start : group.stop].copy_(buffer[:, 1], non_blocking=True)
        event.record()
    torch.cuda.current_stream().synchronize()


def _encode_tail(
    backend: Backend, opened: OpenedStream, plan: Plan, context: Context, tokens: Sequence[Array]
) -> tuple[Tensor, int]:
    """The tail as a partial block under its own full window: the KV it will keep once closed; and bytes read for it."""
    model, spec, tail = backend.model, opened.spec, opened.state.tail
    held = range(max(0, opened.num_blocks - spec.window_blocks), opened.num_blocks)
    if held and len(held) == plan.num_window:  # its window is in the context already, not rotated yet
        window = new_window(model, spec)
        stop = context.length + len(plan.blocks) * spec.block_size
        columns = slice(stop - len(held) * spec.block_size, stop)
        kv = torch.stack((context.keys[:, :, columns], context.values[:, :, columns]), dim=1)
        fill_window(window, held, list(tokens[-len(held) :]), kv)
        held = range(0)
    else:
        window = load_window(backend, opened.stream_id, spec, opened.num_blocks)
    segment = Segment(inputs=tail.inputs, tokens=tail.tokens, block_idx=opened.num_blocks, window=window)
    kv = model.encoder.encode([segment])[0]
    check_finite(kv, opened.stream_id, opened.num_blocks)
    return kv, kv.nbytes // len(tail) * len(held) * spec.block_size
