"""KV that was dropped, encoded again from the stream's source: just the blocks a question needs, after a warm-up.

    wanted blocks -> spans (`spans`) -> the source from there on (`sources`) -> token inputs (`replay`)
    -> one block after the other through the language model, under a window that begins with the span -> KV

The tokens are those that were kept, at their positions and in their blocks. The KV is what it was where all that
influences it is kept or encoded too, and an approximation of it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from torch import Tensor

from cacheflow_ray.config import Reencoding
from cacheflow_ray.engine.kv_cache import Made
from cacheflow_ray.engine.opened import Backend, OpenedStream
from cacheflow_ray.engine.reports import Reencoded
from cacheflow_ray.engine.sources import SourceNote
from cacheflow_ray.engine.span_encoder import SpanEncoder
from cacheflow_ray.engine.spans import Reach, look_into, plan_spans
from cacheflow_ray.errors import MediaError
from memory_store.errors import CorruptRecord, KvDropped
from memory_store.quantize import NATIVE

#: Blocks of warm-up where the user sets none; two windows where that is less: beyond, little is gained.
WARM_UP_BLOCKS = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recovered:
    """What was had again.

    Args:
        kv: [L, 2, H, B, D] un-rotated, of each block.
        report: None where nothing was re-encoded.
        left_out: why the others could not be had.
    """

    kv: Mapping[int, Tensor] = field(default_factory=dict)
    report: Reencoded | None = None
    left_out: Mapping[int, str] = field(default_factory=dict)


def recover(backend: Backend, opened: OpenedStream, wanted: Sequence[int], options: Reencoding) -> Recovered:
    """KV of blocks that lack it, as far as the limits and the source allow.

    Args:
        wanted: the most important first.

    Raises:
        StoreError, InvalidFeatures.
    """
    record = backend.store.get_stream(opened.stream_id)
    note = SourceNote.of(record.settings, options.source)
    if not options.allowed or note is None:
        why = "no source is on record that could be read again: the stream was pushed, or made before they were noted"
        return Recovered(left_out=dict.fromkeys(wanted, why if options.allowed else "re-encoding is switched off"))
    reach = reach_of(backend, opened, options.warm_up_blocks)
    cache, until = backend.again.cache, monotonic() + options.max_seconds
    keys = {block_idx: (opened.stream_id, record.created_s, block_idx, reach.warm_up) for block_idx in wanted}
    made = {block_idx: found for block_idx, key in keys.items() if (found := cache.get(key)) is not None}
    todo = [block_idx for block_idx in wanted if block_idx not in made]
    left_out = dict.fromkeys(todo[options.max_blocks :], f"a question re-encodes {options.max_blocks} blocks at most")
    encoder = SpanEncoder(backend, opened, note, lambda: monotonic() < until)
    for span in plan_spans(todo[: options.max_blocks], reach, look_into(backend.store, opened.stream_id)):
        try:
            for block_idx, kv in encoder.encode(span):
                if block_idx in span.wanted:
                    exact = block_idx in span.exact and not encoder.looks_other
                    made[block_idx] = Made(kv=kv, exact=exact, looks_other=encoder.looks_other)
                    cache.put(keys[block_idx], made[block_idx])
        except (MediaError, CorruptRecord, KvDropped) as error:
            why = str(error) if monotonic() < until else f"{options.max_seconds:g} s were not enough to re-encode it"
            left_out |= {block_idx: why for block_idx in span.wanted if block_idx not in made}
    report = Reencoded(
        source=note.uri,
        block_idxs=tuple(sorted(made)),
        exact_idxs=tuple(sorted(block_idx for block_idx, own in made.items() if own.exact)),
        warm_up_blocks=reach.warm_up,
        looks_other=any(own.looks_other for own in made.values()),
    )
    had = {block_idx: own.kv for block_idx, own in made.items()}
    return Recovered(kv=had, report=report if made else None, left_out=left_out)


def reach_of(backend: Backend, opened: OpenedStream, warm_up_blocks: int | None) -> Reach:
    """Of a stream's blocks, with that many of warm-up; None: as many as are usual."""
    spec = opened.spec
    return Reach(
        warm_up=min(WARM_UP_BLOCKS, 2 * spec.window_blocks) if warm_up_blocks is None else warm_up_blocks,
        window=spec.window_blocks,
        num_layers=backend.model.encoder.num_layers,
        lossless=spec.kv_codec == NATIVE,
    )
