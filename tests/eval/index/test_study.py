"""The index study on keys made so that the right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cacheflow_ray.eval.index.corpus import Asked, Searched
from cacheflow_ray.eval.index.scorers import VECTORS
from cacheflow_ray.eval.index.study import Way, layer_choices, measure, merges, query_forms, stops, summaries

L, H, B, D, N = 3, 2, 16, 8, 40


def planted(at: int = 7) -> list[Searched]:
    """In every block the needle's direction is absent, but for four tokens of one block at the outer layers."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(L, N, H, B, D, generator=generator)
    wanted = torch.zeros(D)
    wanted[0] = 1.0
    keys[..., 0] = -keys[..., 0].abs()
    for layer in (0, L - 1):
        keys[layer, at, :, 4:8] = 3 * wanted
    queries: Tensor = wanted.expand(L, H, 5, D).contiguous()
    return [Searched(keys=keys, asked=(Asked(kind="number", queries=queries, needed=(frozenset({at}),)),))]


@pytest.mark.parametrize("name", [name for name in VECTORS if not name.startswith("gru")])
def test_what_was_planted_is_found_by_every_honest_vector(name: str) -> None:
    found = measure(planted(), Way(vectors=name, layers=(0, L - 1), rule="rrf"))
    assert found.recall[4] == 1.0
    assert found.vectors_per_block == VECTORS[name].per_block(B)


def test_it_is_not_found_at_a_layer_without_it() -> None:
    assert measure(planted(), Way(vectors="all", layers=(1,))).recall[4] == 0.0


def test_stopping_early_takes_fewer_and_keeps_the_best() -> None:
    plain, early = (
        measure(planted(), Way(vectors="all", layers=(0, L - 1), stop_ratio=ratio)) for ratio in (0.0, 0.99)
    )
    assert plain.mean_k[16] == 16
    assert early.mean_k[16] == 1 and early.recall[16] == 1.0


def test_every_question_has_ways_that_run() -> None:
    ways = [
        *summaries(L), *layer_choices(L, "mean", True), *query_forms(L, "all", False),
        *merges((0, L - 1), "mean", False), *stops((0, L - 1), "mean", "rrf", False),
    ]  # fmt: skip
    for way in ways:
        found = measure(planted(), way)
        assert found.n == 1
        assert 0 <= found.recall[4] <= found.recall[8] <= found.recall[16] <= 1, way
