"""Summaries against literal recurrences written one token, one head at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cacheflow_ray.core.summary import (
    SUMMARIES,
    ChangeGated,
    GRUWeights,
    RandomGRU,
    SegmentMeans,
    Summary,
    default_summary,
    gru,
    make_summary,
)
from cacheflow_ray.errors import InvalidConfig

N, S, H, B, D, T = 3, 2, 4, 19, 6, 5


def random_keys(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def plain_gru(keys: Tensor, weights: GRUWeights) -> Tensor:
    """The paper's equations for one sequence [T, D], in float64."""
    (w_r, w_z, w_h), (u_r, u_z, u_h), (b_r, b_z, b_h) = weights.w.double(), weights.u.double(), weights.b.double()
    h = torch.zeros(keys.shape[1], dtype=torch.float64)
    for k in keys.double():
        r = torch.sigmoid(w_r @ k + u_r @ h + b_r)
        z = torch.sigmoid(w_z @ k + u_z @ h + b_z)
        candidate = torch.tanh(w_h @ k + u_h @ (r * h) + b_h)
        h = (1 - z) * h + z * candidate
    return h


def plain_running_average(keys: Tensor, num_states: int) -> Tensor:
    """h <- h + (k - h) / i over each segment of one sequence [B, D], started over at every boundary."""
    long, short = len(keys) % num_states, len(keys) // num_states
    states, start = [], 0
    for segment in range(num_states):
        stop = start + short + (segment < long)
        h = torch.zeros(keys.shape[1], dtype=torch.float64)
        for i, k in enumerate(keys[start:stop].double(), start=1):
            h = h + (k - h) / i
        states.append(h)
        start = stop
    return torch.stack(states)


@pytest.mark.parametrize("name", ["gru", "gru_query"])
def test_gru_summary_equals_the_papers_equations_per_head(name: str) -> None:
    summary = make_summary(name, D)
    assert isinstance(summary, RandomGRU)
    keys = random_keys(N, S, H, B, D)
    got = summary.summarise(keys)
    for n in range(N):
        for s in range(S):
            for h in range(H):
                expected = plain_gru(keys[n, s, h], summary.weights)
                assert torch.allclose(got[n, s, 0, h].double(), expected, atol=1e-6)


def torch_gru(weights: GRUWeights) -> torch.nn.GRU:
    """torch.nn.GRU with the same r and h gates and z negated, as there z weighs the old state."""
    layer = torch.nn.GRU(D, D, batch_first=True)
    sign = torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    layer.load_state_dict(
        {
            "weight_ih_l0": (weights.w * sign).flatten(0, 1),
            "weight_hh_l0": (weights.u * sign).flatten(0, 1),
            "bias_ih_l0": (weights.b * sign[..., 0]).flatten(),
            "bias_hh_l0": torch.zeros(3 * D),
        }
    )
    return layer


@torch.no_grad()
def test_gru_equals_torch_where_the_conventions_agree() -> None:
    """U_h (r*h) is r*(U_h h) when U_h is diagonal."""
    drawn = GRUWeights.seeded(D, 7)
    u = drawn.u.clone()
    u[2] = u[2].diagonal().diag()
    weights = GRUWeights(w=drawn.w, u=u, b=drawn.b)
    keys = random_keys(N, B, D)
    _, last = torch_gru(weights)(keys)
    assert torch.allclose(gru(keys, weights), last[0], atol=1e-6)


@torch.no_grad()
def test_gru_resets_inside_the_product_unlike_torch() -> None:
    weights = GRUWeights.seeded(D, 7)
    keys = random_keys(N, B, D)
    _, last = torch_gru(weights)(keys)
    assert (gru(keys, weights) - last[0]).abs().max() > 1e-4


def test_gru_weights_never_change() -> None:
    """Vectors already stored compare only with vectors of these very weights."""
    weights = GRUWeights.seeded(4, 0)
    assert weights.w[0, 0].tolist() == pytest.approx([0.04881350, 0.21518937, 0.10276338, 0.04488318], abs=1e-7)
    assert torch.equal(RandomGRU(4).weights.u, weights.u)
    assert all(part.abs().max() <= 0.5 for part in (weights.w, weights.u, weights.b))
    assert not torch.equal(GRUWeights.seeded(4, 1).w, weights.w)
    assert RandomGRU(4, seed=1).name != RandomGRU(4).name


@pytest.mark.parametrize(("name", "num_states"), [("mean", 1), ("segments2", 2), ("segments4", 4), ("segments8", 8)])
def test_mean_summaries_equal_a_literal_running_average(name: str, num_states: int) -> None:
    keys = random_keys(N, S, H, B, D)
    got = make_summary(name, D).summarise(keys)
    for n in range(N):
        for s in range(S):
            for h in range(H):
                expected = plain_running_average(keys[n, s, h], num_states)
                assert torch.allclose(got[n, s, :, h].double(), expected, atol=1e-6)


@pytest.mark.parametrize("name", SUMMARIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_summary_keeps_its_promised_shape_dtype_and_name(name: str, dtype: torch.dtype) -> None:
    summary: Summary = make_summary(name, D)
    keys, queries = random_keys(N, S, H, B, D, dtype=dtype), random_keys(S, H, T, D, dtype=dtype)
    kept = keys.clone(), queries.clone()
    vectors, query = summary.summarise(keys), summary.query(queries)
    assert summary.name == name
    assert vectors.shape == (N, S, summary.vectors_per_block, H, D) and vectors.dtype == torch.float32
    assert query.shape == (S, H, D) and query.dtype == torch.float32
    assert torch.equal(vectors, make_summary(name, D).summarise(keys.float()))
    assert torch.equal(keys, kept[0]) and torch.equal(queries, kept[1])


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_blocks_summary_does_not_depend_on_the_blocks_beside_it(name: str) -> None:
    summary = make_summary(name, D)
    keys = random_keys(N, S, H, B, D)
    alone = torch.cat([summary.summarise(block[None]) for block in keys])
    assert torch.allclose(alone, summary.summarise(keys), atol=1e-6)


def test_queries_are_averaged_unless_sent_through_the_gru() -> None:
    queries = random_keys(S, H, T, D)
    for name in ("mean", "segments4", "gru"):
        assert torch.allclose(make_summary(name, D).query(queries), queries.sum(2) / T)
    through = make_summary("gru_query", D)
    assert torch.equal(through.query(queries), through.summarise(queries[None])[0, :, 0])


def test_unknown_names_and_blocks_too_short_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="gru_query") as caught:
        make_summary("median", D)
    assert "'median'" in str(caught.value)
    with pytest.raises(InvalidConfig, match="at least 8 tokens"):
        make_summary("segments8", D).summarise(random_keys(1, S, H, 7, D))
    with pytest.raises(InvalidConfig):
        SegmentMeans(0)


@pytest.mark.parametrize("name", SUMMARIES)
def test_misshapen_input_is_refused(name: str) -> None:
    summary = make_summary(name, D)
    for keys in (torch.zeros(S, H, B, D), torch.zeros(N, S, H, 0, D), torch.zeros(N, S, H, B, D, dtype=torch.long)):
        with pytest.raises(ValueError):
            summary.summarise(keys)
    for queries in (torch.zeros(H, T, D), torch.zeros(S, H, 0, D)):
        with pytest.raises(ValueError):
            summary.query(queries)


def plain_change_gated(keys: Tensor, num_states: int) -> Tensor:
    """The recurrence for one block [H, B, D], token by token, started over where heads agree that it changed most."""
    heads, length, _ = keys.shape
    likeness = [
        torch.stack([torch.cosine_similarity(keys[h, i], keys[h, i - 1], dim=0) for h in range(heads)]).mean().item()
        for i in range(1, length)
    ]
    opened = {1 + at for at in sorted(range(length - 1), key=lambda at: likeness[at])[: num_states - 1]}
    states, h, count = [], torch.zeros_like(keys[:, 0]), 0
    for i in range(length):
        if i in opened:
            states.append(h)
            count = 0
        count += 1
        z = 1 / count
        h = (1 - z) * h + z * keys[:, i]
    return torch.stack([*states, h])  # [V, H, D]


@pytest.mark.parametrize("num_states", [1, 2, 4, B])
def test_change_gated_states_equal_the_literal_recurrence(num_states: int) -> None:
    keys = random_keys(N, S, H, B, D)
    found = ChangeGated(num_states).summarise(keys)
    for n in range(N):
        for s in range(S):
            expected = plain_change_gated(keys[n, s].double(), num_states)
            torch.testing.assert_close(found[n, s].double(), expected, atol=1e-5, rtol=0)


def test_change_gated_opens_where_one_thing_gives_way_to_another() -> None:
    things = torch.eye(D)[:3]
    keys = torch.cat([things[0].expand(5, D), things[1].expand(2, D), things[2].expand(12, D)]).expand(1, 1, H, B, D)
    torch.testing.assert_close(ChangeGated(3).summarise(keys)[0, 0, :, 0], things)


def test_centroids_gather_what_is_scattered_over_a_block() -> None:
    """Three directions in turn, token by token: each gets a centre, whatever its place; the mean is none of them."""
    directions = torch.eye(8)[:3]
    keys = directions[torch.arange(24) % 3].expand(1, 2, 2, 24, 8) * torch.rand(1, 1, 1, 24, 1).add(0.5)
    vectors = make_summary("centroids4", 8).summarise(keys)  # [1, 2, 4, 2, 8]
    best = torch.einsum("nsvhd,cd->nsvhc", torch.nn.functional.normalize(vectors, dim=-1), directions).amax(2)
    assert torch.allclose(best, torch.ones_like(best), atol=1e-6)


def test_as_many_centroids_as_tokens_are_the_keys_themselves() -> None:
    keys = torch.randn(2, 2, 3, 8, 16, generator=torch.Generator().manual_seed(3))
    vectors = make_summary("centroids8", 16).summarise(keys)
    assert torch.allclose(vectors, torch.nn.functional.normalize(keys, dim=-1).transpose(2, 3), atol=1e-6)


@pytest.mark.parametrize(
    ("block_size", "name"),
    [(4, "mean"), (8, "centroids4"), (16, "centroids8"), (31, "centroids8"), (32, "centroids16")],
)
def test_the_default_suits_the_block_size(block_size: int, name: str) -> None:
    assert default_summary(block_size) == name
