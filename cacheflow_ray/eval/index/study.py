"""Recall of every way of finding blocks, one question after the other, each with the best answer to the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from cacheflow_ray.core.consensus import MergeRule, merge, stop_early
from cacheflow_ray.eval.index.corpus import Asked, Searched
from cacheflow_ray.eval.index.scorers import VECTORS, QueryForm, query_vectors, scores
from cacheflow_ray.types import Hit

TOP_K = (4, 8, 16)

#: Candidates per layer, as a multiple of K.
CANDIDATES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of finding blocks.

    Args:
        vectors: of VECTORS; query: form of the query; layers: whose keys rank, one or two (first, last).
        rule: how two rankings merge; published_cut: lists are cut at K before.
        centred: the stream's mean vector is subtracted from every vector.
        votes: heads vote.
        stop_ratio: of `core.consensus.stop_early`.
    """

    vectors: str
    query: QueryForm = "mean"
    layers: tuple[int, ...]
    rule: MergeRule = "consensus"
    published_cut: bool = False
    centred: bool = False
    votes: bool = False
    stop_ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one way found. `recall`: K -> share of needed events found; `mean_k`: K -> blocks it chose."""

    way: Way
    vectors_per_block: int
    recall: Mapping[int, float]
    mean_k: Mapping[int, float]
    n: int


def measure(corpus: Sequence[Searched], way: Way) -> Measured:
    """Recall of a way over all questions of a corpus."""
    hits: dict[int, list[bool]] = {top_k: [] for top_k in TOP_K}
    sizes: dict[int, list[int]] = {top_k: [] for top_k in TOP_K}
    for stream in corpus:
        kept = {layer: _kept(stream.keys[layer], way) for layer in way.layers}
        for asked in stream.asked:
            ranked = [_ranking(kept[layer], asked, layer, way) for layer in way.layers]
            for top_k in TOP_K:
                chosen = _chosen(ranked, top_k, way)
                hits[top_k] += [bool(event & chosen) for event in asked.needed]
                sizes[top_k].append(len(chosen))
    return Measured(
        way=way,
        vectors_per_block=VECTORS[way.vectors].per_block(corpus[0].keys.shape[3]),
        recall={top_k: sum(found) / len(found) for top_k, found in hits.items()},
        mean_k={top_k: sum(sizes[top_k]) / len(sizes[top_k]) for top_k in TOP_K},
        n=len(hits[TOP_K[0]]),
    )


def _kept(keys: Tensor, way: Way) -> Tensor:
    kept = VECTORS[way.vectors].make(keys)
    return kept - kept.mean((0, 1), keepdim=True) if way.centred else kept


def _ranking(kept: Tensor, asked: Asked, layer: int, way: Way) -> list[Hit]:
    vectors = VECTORS[way.vectors]
    query = query_vectors(asked.queries[layer], way.query, vectors)
    found = scores(kept, query, vectors, votes=way.votes)
    order = torch.sort(found, descending=True, stable=True).indices[: CANDIDATES * max(TOP_K)].tolist()
    return [Hit(block_idx=at, score=float(found[at])) for at in order]


def _chosen(ranked: Sequence[list[Hit]], top_k: int, way: Way) -> set[int]:
    cut = [ranking[: CANDIDATES * top_k] for ranking in ranked]
    if way.stop_ratio:
        cut = [stop_early(ranking, way.stop_ratio) for ranking in cut]
    if len(cut) == 1:
        return {hit.block_idx for hit in cut[0][:top_k]}
    found = merge(cut[0], cut[1], top_k, way.rule, way.published_cut)
    return {hit.block_idx for hit in found}


def summaries(num_layers: int) -> Iterator[Way]:
    """Which vectors, at first and last layer and at the first alone: plain, centred, and by votes."""
    for layers in ((0, num_layers - 1), (0,)):
        for name, vectors in VECTORS.items():
            yield Way(vectors=name, layers=layers, rule="rrf")
            if not vectors.bounds:
                yield Way(vectors=name, layers=layers, rule="rrf", centred=True)
            if name in ("mean", "all"):
                yield Way(vectors=name, layers=layers, rule="rrf", centred=True, votes=True)


def layer_choices(num_layers: int, vectors: str, centred: bool) -> Iterator[Way]:
    """Which layers: each alone, and every pair."""
    for layer in range(num_layers):
        yield Way(vectors=vectors, layers=(layer,), centred=centred)
    for pair in combinations(range(num_layers), 2):
        yield Way(vectors=vectors, layers=pair, rule="rrf", centred=centred)


def query_forms(num_layers: int, vectors: str, centred: bool) -> Iterator[Way]:
    """Which query, at first and last layer together and at every layer alone."""
    forms: tuple[QueryForm, ...] = ("mean", "last", "tokens")
    for form in forms:
        for layers in ((0, num_layers - 1), *((layer,) for layer in range(num_layers))):
            yield Way(vectors=vectors, query=form, layers=layers, rule="rrf", centred=centred)


def merges(layers: tuple[int, int], vectors: str, centred: bool) -> Iterator[Way]:
    """Which merge of the two layers' rankings."""
    yield Way(vectors=vectors, layers=layers, published_cut=True, centred=centred)
    rules: tuple[MergeRule, ...] = ("consensus", "rrf", "interleave", "last", "first")
    for rule in rules:
        yield Way(vectors=vectors, layers=layers, rule=rule, centred=centred)


def stops(layers: tuple[int, int], vectors: str, rule: MergeRule, centred: bool) -> Iterator[Way]:
    """How early to stop."""
    for ratio in (0.0, 0.5, 0.7, 0.8, 0.9):
        yield Way(vectors=vectors, layers=layers, rule=rule, centred=centred, stop_ratio=ratio)
