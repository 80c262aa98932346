"""Consensus retrieval: the first and the last layer each rank the blocks, and K slots go first to blocks both list.

CacheFlow §3.4 cuts each layer's list at K before merging. Then (both) + (last only) has exactly K blocks, and the merge
always returns the last layer's top K: a no-op (`published_cut` keeps it runnable). Here the lists come with M > K
candidates each, and only the result is cut. Pure Python on short lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from math import fsum, inf
from typing import Final, Literal, TypeAlias

from cacheflow_ray.types import Hit

#: Blocks of one layer or head, best first, each block once.
Ranking: TypeAlias = Sequence[Hit]
MergeRule: TypeAlias = Literal["consensus", "rrf", "interleave", "last", "first"]

#: Constant of reciprocal-rank fusion: 1 / (60 + rank), Cormack et al. 2009.
RRF_K: Final = 60


def merge(
    first: Ranking, last: Ranking, top_k: int, rule: MergeRule = "consensus", published_cut: bool = False
) -> list[Hit]:
    """Merge two layers' rankings into at most K blocks, best first, none twice, all K where that many exist.

    Rules, after the order of which the result is cut at K:
        consensus   blocks of both lists by reciprocal-rank fusion, then the rest of `last`, then the rest of `first`
        rrf         all blocks by reciprocal-rank fusion
        interleave  last's best, first's best, last's second, ...
        last        `last` alone
        first       `first` alone
    Equal fusion scores: the better rank in `last` wins.

    Args:
        first, last: rankings of the first and last layer, of M >= K candidates where there are as many.
        top_k: K >= 0.
        published_cut: cut both lists at K beforehand, as the paper does.

    Returns:
        Hits whose score is the block's fused score, 1/(60 + rank) summed over the lists that hold it, under every rule.
        It orders the result under `rrf` only.

    Raises:
        ValueError: K is negative, a ranking lists a block twice, or the rule is unknown.
    """
    if top_k < 0:
        raise ValueError(f"top_k must be 0 or more, not {top_k}")
    if rule not in _ORDERS:
        raise ValueError(f"no merge rule is called {rule!r}: choose one of {', '.join(_ORDERS)}")
    if published_cut:
        first, last = first[:top_k], last[:top_k]
    first_ranks, last_ranks = _ranks(first), _ranks(last)
    order = _ORDERS[rule](first_ranks, last_ranks)
    return [Hit(block_idx=block, score=_fused(block, first_ranks, last_ranks)) for block in order[:top_k]]


def vote_ranking(per_head: Sequence[Ranking], mean: Ranking) -> list[Hit]:
    """A layer's ranking by how many heads list a block; ties by mean cosine, then by the lower block number.

    Args:
        per_head: one ranking per kv-head, each cut where a vote should end.
        mean: the layer's ranking by the mean cosine over heads; its blocks without a vote come last.

    Returns:
        Hits whose score is the mean cosine. Of a voted block that `mean` was too short to list, that is at most the
        worst listed score: the lower of this and the mean of the scores of the heads that list it.

    Raises:
        ValueError: a ranking lists a block twice.
    """
    votes: dict[int, list[float]] = {block: [] for block in _ranks(mean)}
    for ranking in per_head:
        _ranks(ranking)
        for hit in ranking:
            votes.setdefault(hit.block_idx, []).append(hit.score)
    floor = min((hit.score for hit in mean), default=inf)
    cosine = {hit.block_idx: hit.score for hit in mean}
    for block, scores in votes.items():
        if block not in cosine:
            cosine[block] = min(floor, fsum(scores) / len(scores))
    order = sorted(votes, key=lambda block: (-len(votes[block]), -cosine[block], block))
    return [Hit(block_idx=block, score=cosine[block]) for block in order]


def stop_early(ranking: Ranking, stop_ratio: float) -> list[Hit]:
    """Leave out hits that score below `stop_ratio` times the ranking's best; for each layer's list before `merge`.

    Cosines tell how far scores fall; ranks fall alike for every question. A ranking whose best is not positive is
    returned whole, since a share of it would be above it.

    Args:
        stop_ratio: 0..1; higher keeps fewer.

    Raises:
        ValueError: the ratio is outside 0..1.
    """
    if not 0 <= stop_ratio <= 1:
        raise ValueError(f"stop_ratio must be in 0..1, not {stop_ratio}")
    best = max((hit.score for hit in ranking), default=0.0)
    return [hit for hit in ranking if best <= 0 or hit.score >= stop_ratio * best]


_Ranks: TypeAlias = Mapping[int, int]  # block_idx -> rank from 1, in rank order


def _ranks(ranking: Ranking) -> _Ranks:
    ranks = {hit.block_idx: rank for rank, hit in enumerate(ranking, start=1)}
    if len(ranks) < len(ranking):
        raise ValueError("a ranking lists a block twice")
    return ranks


def _fused(block: int, first: _Ranks, last: _Ranks) -> float:
    return sum(1 / (RRF_K + ranks[block]) for ranks in (last, first) if block in ranks)


def _by_fusion(blocks: Iterable[int], first: _Ranks, last: _Ranks) -> list[int]:
    return sorted(blocks, key=lambda block: (-_fused(block, first, last), last.get(block, inf)))


def _consensus(first: _Ranks, last: _Ranks) -> list[int]:
    both = _by_fusion((block for block in last if block in first), first, last)
    return [*both, *(block for block in last if block not in first), *(block for block in first if block not in last)]


def _rrf(first: _Ranks, last: _Ranks) -> list[int]:
    return _by_fusion({**last, **first}, first, last)


def _interleave(first: _Ranks, last: _Ranks) -> list[int]:
    alternating = chain.from_iterable(zip_longest(last, first))
    return list(dict.fromkeys(block for block in alternating if block is not None))


def _last(first: _Ranks, last: _Ranks) -> list[int]:
    return list(last)


def _first(first: _Ranks, last: _Ranks) -> list[int]:
    return list(first)


_ORDERS: Final[Mapping[str, Callable[[_Ranks, _Ranks], list[int]]]] = {
    "consensus": _consensus,
    "rrf": _rrf,
    "interleave": _interleave,
    "last": _last,
    "first": _first,
}
