"""Which blocks are encoded to get the KV of some back, and how near that comes to what it was.

    first                                      wanted
      | KV kept: read | warm-up: encoded |  B  | encoded, given up | B |
                      encode[0] ................................ encode[-1]

A block's KV is a function of its own tokens and of the KV of the W blocks before it. Where that is kept, or the span
begins with the stream, encoding gives what was there. Elsewhere a warm-up of some blocks stands for all that was
before: windows are short in it, and layer l of a block is as it was from l * W blocks behind the span's first on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cacheflow_ray.engine.protocol import BlockStore
from memory_store.errors import BlockNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Consecutive blocks gone through in order.

    Args:
        first: the oldest.
        encode: blocks encoded, ascending; of the others from `first` on, KV is kept and read.
        wanted: those of them whose KV is wanted.
        exact: those of them whose KV comes out as it was, up to rounding.
    """

    first: int
    encode: tuple[int, ...]
    wanted: tuple[int, ...]
    exact: frozenset[int]

    @property
    def blocks(self) -> range:
        """All of them."""
        return range(self.first, self.encode[-1] + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What influences a block.

    Args:
        warm_up: blocks encoded before one that is wanted, at most.
        window: W of the stream.
        num_layers: L.
        lossless: KV that is kept is kept bit for bit.
    """

    warm_up: int
    window: int
    num_layers: int
    lossless: bool = True


#: Blocks asked about -> those of them, up to the last and without a gap, that there still are, and which lack KV.
Look = Callable[[range], tuple[range, frozenset[int]]]


def plan_spans(wanted: Sequence[int], reach: Reach, look: Look) -> Iterator[Span]:
    """Spans over blocks that lack KV. Neighbours whose warm-ups meet share one: the later has a longer warm-up then.

    Args:
        wanted: in order of importance; the span of the first comes first.
    """
    rank = {block_idx: place for place, block_idx in enumerate(wanted)}
    groups: list[list[int]] = []
    for block_idx in sorted(rank):
        if groups and block_idx - reach.warm_up <= groups[-1][-1] + 1:
            groups[-1].append(block_idx)
        else:
            groups.append([block_idx])
    groups.sort(key=lambda group: min(rank[block_idx] for block_idx in group))
    return (_span(tuple(group), reach, look) for group in groups)


def _span(wanted: tuple[int, ...], reach: Reach, look: Look) -> Span:
    asked = range(max(0, wanted[0] - reach.warm_up - reach.window), wanted[-1] + 1)
    there, missing = look(asked)
    start = max(there.start, wanted[0] - reach.warm_up)
    encode = tuple(idx for idx in range(start, wanted[-1] + 1) if idx in missing or idx in wanted)
    first = encode[0]
    while first > there.start and encode[0] - first < reach.window and first - 1 not in missing:
        first -= 1
    as_kept = reach.lossless or first + len(encode) == wanted[-1] + 1
    whole_window = first == 0 or encode[0] - first >= reach.window
    settled = first + (reach.num_layers - 1) * reach.window
    exact = frozenset(block_idx for block_idx in wanted if as_kept and (whole_window or block_idx >= settled))
    return Span(first=first, encode=encode, wanted=wanted, exact=exact)


def look_into(store: BlockStore, stream_id: str) -> Look:
    """At a store's stream."""

    def look(blocks: range) -> tuple[range, frozenset[int]]:
        while True:
            try:
                return blocks, frozenset(store.without_kv(stream_id, blocks))
            except BlockNotFound as error:
                deleted = error.ids.get("block_idx")
                if not isinstance(deleted, int) or deleted + 1 >= blocks.stop:
                    raise
                blocks = range(deleted + 1, blocks.stop)

    return look
