"""What a library index is made of at one moment, and what is due to be made of it next.

    tail --seal--> segment --compact--> segment
                   segments of one size --merge--> a larger segment

Every one of these builds one segment from parts of a state; meanwhile others search the old parts, and add and remove.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from memory_store.errors import InvalidRecord
from memory_store.library.segment import CODECS, Segment, dead_rows
from memory_store.library.tail import Tail
from memory_store.records import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrarySpec:
    """Which vectors a library index holds; vectors of two specs never mix.

    Args:
        fingerprint: identity of the model whose summaries these are.
        layer: which summarised layer.
        num_heads, head_dim: H and D of a vector.
    """

    fingerprint: str
    layer: int
    num_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        if not self.fingerprint or self.layer < 0 or self.num_heads < 1 or self.head_dim < 1:
            raise InvalidRecord(f"{self} names no vectors: it needs a fingerprint, a layer, heads and a dimension")

    @property
    def dim(self) -> int:
        """H * D."""
        return self.num_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrarySettings:
    """How a library index is kept.

    Args:
        tail_limit: vectors searched exactly; when there are more, all of them are sealed.
        num_probes: lists of a segment a search looks into.
        codec: of CODECS, how segments keep vectors.
        dead_share: a segment with more of its rows removed is built anew without them.
        merge_factor: so many segments of about one size become one; a library of n vectors has at most
            merge_factor - 1 segments per power of merge_factor in n / tail_limit.
    """

    tail_limit: int = 50_000
    num_probes: int = 64
    codec: str = "sq8"
    dead_share: float = 0.25
    merge_factor: int = 4

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise InvalidRecord(f"no codec {self.codec!r}: use one of {', '.join(CODECS)}")
        if self.tail_limit < 1 or self.num_probes < 1 or self.merge_factor < 2 or not 0 <= self.dead_share < 1:
            raise InvalidRecord(
                f"{self}: limits and probes are at least 1, a merge takes 2 or more, a share is below 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Never changed. num_blocks: by stream number, how many blocks of it were ever added."""

    segments: tuple[Segment, ...]
    tail: Tail
    num_blocks: Mapping[int, int] = field(default_factory=dict)

    def without(self, ranges: Array) -> State:
        """With the vectors within the disjoint `ranges` [R, 2] removed."""
        dead = [dead_rows(segment, ranges) for segment in self.segments]
        segments = tuple(
            part.without(rows) if rows.any() else part for part, rows in zip(self.segments, dead, strict=True)
        )
        return replace(self, segments=segments, tail=self.tail.without(ranges))

    def replaced(self, parts: Parts, segment: Segment | None) -> State:
        """With `segment` in the place of `parts`; what was removed from them meanwhile is removed from it."""
        kept = tuple(other for other in self.segments if other.key not in parts.keys)
        if segment is not None:
            gone = ~np.isin(segment.ids, parts.alive_ids(self), assume_unique=True)
            kept += (segment.without(gone),) if gone.any() else (segment,)
        tail = self.tail.after(parts.tail_rows) if parts.tail_rows else self.tail
        return replace(self, segments=kept, tail=tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one segment is to be made of: segments by key, or the first `tail_rows` rows of the tail."""

    keys: frozenset[int] = frozenset()
    tail_rows: int = 0

    def alive_ids(self, state: State) -> Array:
        """int64 [n], ascending: the ids of these parts that are not removed."""
        rows = np.flatnonzero(state.tail.alive[: self.tail_rows])
        chosen = [segment.ids[segment.alive] for segment in state.segments if segment.key in self.keys]
        return np.sort(np.concatenate([state.tail.ids[rows], *chosen]))

    def decoded(self, state: State, ids: Array) -> Array:
        """float32 [n, H * D]: the vectors of `ids`, ascending [n] and all in these segments, as decoded."""
        vectors = np.zeros((len(ids), state.tail.vectors.shape[1]), np.float32)
        for segment in state.segments:
            if segment.key in self.keys and len(ids):
                mine, found = segment.decoded(ids)
                vectors[mine] = found
        return vectors


def due(state: State, settings: LibrarySettings, unreadable: frozenset[int] = frozenset()) -> Parts | None:
    """What is to be built next, or None: first the tail, then a segment with many dead rows, then a merge.

    Args:
        unreadable: keys of segments to leave alone.
    """
    if state.tail.count > settings.tail_limit:
        return Parts(tail_rows=state.tail.count)
    segments = [segment for segment in state.segments if segment.key not in unreadable]
    for segment in segments:
        if segment.num_dead > settings.dead_share * len(segment.ids):
            return Parts(keys=frozenset({segment.key}))
    tiers: dict[int, list[int]] = {}
    for segment in segments:
        tiers.setdefault(_tier(len(segment.ids), settings), []).append(segment.key)
    for _, keys in sorted(tiers.items()):
        if len(keys) >= settings.merge_factor:
            return Parts(keys=frozenset(keys))
    return None


def _tier(count: int, settings: LibrarySettings) -> int:
    """Segments of `count` vectors are merged with others of their tier, 0 the smallest."""
    return max(0, int(math.log(count / settings.tail_limit, settings.merge_factor) + 1e-9))
