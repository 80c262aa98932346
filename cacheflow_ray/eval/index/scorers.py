"""Every way of scoring blocks that is compared; what wins becomes a `core.summary.Summary`.

A scorer turns the keys of one layer [N, H, B, D] and a question's query tokens [H, T, D] into scores [N].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from cacheflow_ray.core.summary import make_summary

QueryForm: TypeAlias = Literal["mean", "last", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """What is kept of each block.

    Args:
        make: keys [N, H, B, D] -> [N, V, H, D].
        per_block: V for a block of B tokens.
        head: how scores of heads become one.
        through: the query goes through the same recurrence.
        bounds: the vectors are channel-wise bounds (smallest, largest), not directions.
    """

    make: Callable[[Tensor], Tensor]
    per_block: Callable[[int], int]
    through: str | None = None
    bounds: bool = False


def _summary(name: str, through: bool = False) -> Vectors:
    count = make_summary(name, 1).vectors_per_block  # the same for every head_dim

    def make(keys: Tensor) -> Tensor:
        return make_summary(name, keys.shape[-1]).summarise(keys[:, None])[:, 0]

    return Vectors(make=make, per_block=lambda _: count, through=name if through else None)


def _all_keys(keys: Tensor) -> Tensor:
    return keys.transpose(1, 2)


def _bounds(keys: Tensor) -> Tensor:
    return torch.stack([keys.amin(2), keys.amax(2)], dim=1)


#: name -> what is kept of a block.
VECTORS: Final[dict[str, Vectors]] = {
    "gru": _summary("gru"),
    "gru_query": _summary("gru_query", through=True),
    "mean": _summary("mean"),
    "minmax": Vectors(make=_bounds, per_block=lambda _: 2, bounds=True),
    "segments2": _summary("segments2"),
    "segments4": _summary("segments4"),
    "recurrent4": _summary("recurrent4"),
    "recurrent8": _summary("recurrent8"),
    "centroids4": _summary("centroids4"),
    "centroids8": _summary("centroids8"),
    "segments16": _summary("segments16"),
    "recurrent16": _summary("recurrent16"),
    "centroids16": _summary("centroids16"),
    "all": Vectors(make=_all_keys, per_block=lambda size: size),
}


def query_vectors(queries: Tensor, form: QueryForm, vectors: Vectors) -> Tensor:
    """Query tokens [H, T, D] -> [T', H, D]: one vector, or one per token whose best counts."""
    if vectors.through is not None:
        return make_summary(vectors.through, queries.shape[-1]).query(queries[None])
    if form == "tokens":
        return queries.transpose(0, 1)
    return queries[:, -1][None] if form == "last" else queries.mean(1)[None]


def scores(kept: Tensor, query: Tensor, vectors: Vectors, *, votes: bool = False) -> Tensor:
    """[N] scores of blocks.

    Args:
        kept: [N, V, H, D]; centred or not. query: [T', H, D].
        votes: count, per head, the blocks above the head's 32nd best; ties by mean cosine.
    """
    if vectors.bounds:
        low, high = kept.unbind(1)
        return torch.maximum(query[:, None] * low, query[:, None] * high).sum(-1).mean(-1).amax(0)
    units, wanted = F.normalize(kept, dim=-1), F.normalize(query, dim=-1)
    per_head = torch.einsum("nvhd,thd->tnvh", units, wanted)
    mean = per_head.mean(-1).amax(2).amax(0)
    if not votes:
        return mean
    best = per_head.amax(2).amax(0)  # [N, H]
    floor = best.topk(min(32, len(best)), dim=0).values[-1]
    return (best >= floor).sum(-1) + 0.5 * (mean + 1) / 2
