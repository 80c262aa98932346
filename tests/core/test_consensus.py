"""Merging two layers' rankings: worked examples, and what must hold of any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.core.consensus import MergeRule, Ranking, merge, stop_early, vote_ranking
from cacheflow_ray.types import Hit

RULES: list[MergeRule] = ["consensus", "rrf", "interleave", "last", "first"]
rules = st.sampled_from(RULES)
rankings = st.lists(st.integers(0, 25), unique=True, max_size=20).map(lambda blocks: ranked(*blocks))


def ranked(*blocks: int) -> list[Hit]:
    return [Hit(block_idx=block, score=1 - i / 100) for i, block in enumerate(blocks)]


def blocks_of(ranking: Ranking) -> list[int]:
    return [hit.block_idx for hit in ranking]


def test_first_is_the_first_layers_own_order() -> None:
    merged = merge(ranked(4, 8, 9, 2), ranked(1, 2, 3, 4), 3, "first")
    assert blocks_of(merged) == [4, 8, 9]
    assert merged[0].score == pytest.approx(1 / 61 + 1 / 64)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # ranks (last, first): 1 (1, -)  2 (2, 4)  3 (3, -)  4 (4, 1)  8 (-, 2)  9 (-, 3)
        ("consensus", [4, 2, 1, 3, 8, 9]),  # 1/64 + 1/61 > 1/62 + 1/64
        ("rrf", [4, 2, 1, 8, 3, 9]),  # equal at rank 3: last's first
        ("interleave", [1, 4, 2, 8, 3, 9]),
        ("last", [1, 2, 3, 4]),
    ],
)
def test_worked_example(rule: MergeRule, expected: list[int]) -> None:
    first, last = ranked(4, 8, 9, 2), ranked(1, 2, 3, 4)
    merged = merge(first, last, 6, rule)
    assert blocks_of(merged) == expected
    assert merged[expected.index(4)].score == pytest.approx(1 / 61 + 1 / 64)
    assert merged[expected.index(1)].score == pytest.approx(1 / 61)


@given(rankings, rankings, st.integers(0, 30), rules)
def test_exactly_k_blocks_none_twice_all_from_the_lists(first: Ranking, last: Ranking, k: int, rule: MergeRule) -> None:
    merged = blocks_of(merge(first, last, k, rule))
    rankings = {"last": [last], "first": [first]}.get(rule, [first, last])
    known = {block for ranking in rankings for block in blocks_of(ranking)}
    assert len(merged) == min(k, len(known))
    assert len(set(merged)) == len(merged)
    assert set(merged) <= known


@given(rankings, rankings, st.integers(0, 20), rules)
def test_a_smaller_k_is_a_prefix_of_a_larger(first: Ranking, last: Ranking, k: int, rule: MergeRule) -> None:
    assert merge(first, last, k, rule) == merge(first, last, 40, rule)[:k]


@given(rankings, rankings, st.integers(0, 30))
def test_consensus_blocks_come_before_all_others(first: Ranking, last: Ranking, k: int) -> None:
    merged = blocks_of(merge(first, last, k))
    in_first, in_last = set(blocks_of(first)), set(blocks_of(last))
    tiers = [0 if block in in_first & in_last else 1 if block in in_last else 2 for block in merged]
    assert tiers == sorted(tiers)
    for tier, ranking in ((1, last), (2, first)):
        members = [block for block, level in zip(merged, tiers, strict=True) if level == tier]
        assert members == [block for block in blocks_of(ranking) if block in members]


@given(st.permutations(range(20)), st.permutations(range(20)), st.integers(0, 20))
def test_published_cut_is_always_the_last_layers_top_k(first: list[int], last: list[int], k: int) -> None:
    merged = merge(ranked(*first), ranked(*last), k, "consensus", published_cut=True)
    assert set(blocks_of(merged)) == set(last[:k])


def test_more_candidates_than_k_let_the_first_layer_speak() -> None:
    first, last = ranked(5, 6, 7, 8), ranked(1, 2, 5, 6)
    assert blocks_of(merge(first, last, 2)) == [5, 6]
    assert blocks_of(merge(first, last, 2, published_cut=True)) == [1, 2]


@given(rankings, rankings, st.integers(0, 30), rules, st.permutations(range(26)))
def test_block_numbers_are_only_names(
    first: Ranking, last: Ranking, k: int, rule: MergeRule, renamed: list[int]
) -> None:
    def rename(ranking: Ranking) -> list[Hit]:
        return [Hit(block_idx=renamed[hit.block_idx], score=hit.score) for hit in ranking]

    assert merge(rename(first), rename(last), k, rule) == rename(merge(first, last, k, rule))


@given(rankings, rankings)
def test_fused_scores_are_symmetric_and_order_rrf(first: Ranking, last: Ranking) -> None:
    one, other = merge(first, last, 50, "rrf"), merge(last, first, 50, "rrf")
    assert {hit.block_idx: hit.score for hit in one} == {hit.block_idx: hit.score for hit in other}
    scores = [hit.score for hit in one]
    assert scores == sorted(scores, reverse=True)


@given(rankings, st.integers(0, 30), rules)
def test_two_equal_rankings_merge_to_themselves(ranking: Ranking, k: int, rule: MergeRule) -> None:
    assert blocks_of(merge(ranking, ranking, k, rule)) == blocks_of(ranking)[:k]


def test_senseless_arguments_are_refused() -> None:
    twice = ranked(1, 2, 1)
    with pytest.raises(ValueError, match="top_k"):
        merge([], [], -1)
    with pytest.raises(ValueError, match="borda"):
        merge([], [], 1, "borda")  # type: ignore[arg-type]
    for first, last in ((twice, []), ([], twice)):
        with pytest.raises(ValueError, match="twice"):
            merge(first, last, 1)
    with pytest.raises(ValueError, match="twice"):
        vote_ranking([twice], [])


def test_votes_outrank_the_mean_and_ties_go_to_the_mean_cosine() -> None:
    mean = ranked(1, 3, 2, 4)
    votes = vote_ranking([ranked(3, 2), ranked(2, 3), ranked(1)], mean)
    assert votes == [mean[1], mean[2], mean[0], mean[3]]


def test_a_voted_block_the_mean_did_not_list_scores_at_most_the_worst_listed() -> None:
    mean = [Hit(block_idx=1, score=0.5)]
    heads = [
        [Hit(block_idx=7, score=0.9), Hit(block_idx=8, score=0.25)],
        [Hit(block_idx=7, score=0.7), Hit(block_idx=8, score=0.0)],
    ]
    assert vote_ranking(heads, mean) == [
        Hit(block_idx=7, score=0.5),
        Hit(block_idx=8, score=0.125),
        Hit(block_idx=1, score=0.5),
    ]


@given(st.lists(rankings, max_size=4), rankings, st.randoms())
def test_votes_do_not_depend_on_the_order_of_heads(per_head: list[Ranking], mean: Ranking, rng: object) -> None:
    shuffled = list(per_head)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    voted = vote_ranking(per_head, mean)
    assert voted == vote_ranking(shuffled, mean)
    assert sorted(blocks_of(voted)) == sorted({hit.block_idx for ranking in (*per_head, mean) for hit in ranking})
    count = [sum(block in blocks_of(ranking) for ranking in per_head) for block in blocks_of(voted)]
    assert count == sorted(count, reverse=True)


def test_stopping_early_drops_what_falls_off_from_the_best() -> None:
    ranking = [Hit(block_idx=i, score=score) for i, score in enumerate([0.8, 0.5, 0.4, 0.39, -0.1])]
    assert blocks_of(stop_early(ranking, 0.5)) == [0, 1, 2]
    assert blocks_of(stop_early(ranking, 1.0)) == [0]
    assert blocks_of(stop_early(ranking, 0.0)) == [0, 1, 2, 3]
    below_zero = ranking[4:]
    assert stop_early(below_zero, 0.5) == below_zero
    assert stop_early([], 0.5) == []
    with pytest.raises(ValueError, match="stop_ratio"):
        stop_early(ranking, 1.5)
