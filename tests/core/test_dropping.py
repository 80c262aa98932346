"""Token dropping against a plain per-token reference, and its independence of chunking."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from cacheflow_ray.core.dropping import ADAPTIVE_REACH, DropRule, drop, keep_rate, similarity
from cacheflow_ray.errors import InvalidConfig, InvalidFeatures

RULES = [
    DropRule(tau=tau, reference=reference, adaptive=adaptive)
    for tau in (0.25, 0.5, 0.9)
    for reference in ("previous", "last_kept")
    for adaptive in (False, True)
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def drifting_frames(num_frames: int, patches: int, channels: int, seed: int) -> Tensor:
    """Frames that change a little each step and wholly at some patches, so that similarities spread over -1..1."""
    rng = torch.Generator().manual_seed(seed)
    frames = [torch.randn(patches, channels, generator=rng)]
    for _ in range(num_frames - 1):
        step = torch.randn(patches, channels, generator=rng)
        weight = torch.rand(patches, 1, generator=rng) ** 3 * 2
        frames.append(frames[-1] + weight * step)
    return torch.stack(frames)


def plain_cosine(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def plain_drop(frames: Tensor, rule: DropRule) -> tuple[list[list[bool]], list[list[float]], float]:
    """One token at a time, as the paper words it: masks, the final reference, and how near any choice came to a tie."""
    reference: list[list[float]] | None = None
    masks, nearest = [], math.inf
    for frame in frames.double().tolist():
        if reference is None:
            masks.append([True] * len(frame))
            reference = frame
            continue
        scores = [plain_cosine(x, ref) for x, ref in zip(frame, reference, strict=True)]
        mask = [s < rule.tau for s in scores]
        nearest = min(nearest, *(abs(s - rule.tau) for s in scores))
        if not any(mask):
            best, *rest = sorted(scores)
            nearest = min(nearest, rest[0] - best if rest else math.inf)
            mask[scores.index(best)] = True
        reference = [
            x if kept or rule.reference == "previous" else ref
            for x, ref, kept in zip(frame, reference, mask, strict=True)
        ]
        masks.append(mask)
    assert reference is not None
    return masks, reference, nearest


@given(
    st.integers(1, 6), st.integers(1, 7), st.integers(1, 9), st.integers(0, 10**6),
    st.floats(-0.9, 1.0), st.sampled_from(["previous", "last_kept"]), st.sampled_from(DTYPES),
)  # fmt: skip
def test_decisions_equal_the_plain_per_token_rule(
    num_frames: int, patches: int, channels: int, seed: int, tau: float, reference: str, dtype: torch.dtype
) -> None:
    frames = drifting_frames(num_frames, patches, channels, seed).to(dtype)
    rule = DropRule(tau=tau, reference=reference)  # type: ignore[arg-type]
    masks, final, nearest = plain_drop(frames, rule)
    assume(nearest > 1e-5)
    result = drop(frames, None, rule)
    assert result.keep.tolist() == masks
    assert result.reference.double().tolist() == final


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(9, 1, 5), (9, 16, 128), (9, 196, 896), (5, 49, 3584)], ids=str)
def test_any_chunking_gives_bitwise_the_same(rule: DropRule, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    frames = drifting_frames(*shape, seed=1).to(dtype)
    whole = drop(frames, None, rule)
    for sizes in ([1] * shape[0], [2, shape[0] - 2], [shape[0] - 1, 1]):
        reference, masks = None, []
        for chunk in torch.split(frames, sizes):
            result = drop(chunk, reference, rule)
            reference = result.reference
            masks.append(result.keep)
        assert torch.equal(torch.cat(masks), whole.keep)
        assert reference is not None and torch.equal(reference, whole.reference)
    assert 0 < keep_rate(whole.keep) < 1 or shape[1] == 1


@pytest.mark.parametrize("channels", [5, 128, 896, 3584])
def test_similarity_is_bitwise_blind_to_its_company(channels: int) -> None:
    frames = drifting_frames(8, 23, channels, seed=2)
    together = similarity(frames[1:], frames[:-1])
    for t in range(7):
        for p in range(23):
            alone = similarity(frames[t + 1, p : p + 1], frames[t, p : p + 1])
            assert torch.equal(alone[0], together[t, p])


@pytest.mark.parametrize("channels", [5, 128, 896, 3584])
def test_similarity_is_bitwise_blind_to_memory_layout(channels: int) -> None:
    frames = drifting_frames(8, 23, channels, seed=2)
    channels_outside = frames.transpose(1, 2).contiguous().transpose(1, 2)
    together = similarity(channels_outside[1:], channels_outside[:-1])
    assert torch.equal(together, similarity(frames[1:], frames[:-1]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_gpu_decides_bitwise_like_the_cpu(rule: DropRule) -> None:
    frames = drifting_frames(9, 196, 896, seed=1).bfloat16()
    assert torch.equal(drop(frames.cuda(), None, rule).keep.cpu(), drop(frames, None, rule).keep)
    scores = similarity(frames[1:].cuda(), frames[:-1].cuda())
    assert torch.equal(scores.cpu(), similarity(frames[1:], frames[:-1]))


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1.0, 1e20, 1e38])
def test_similarity_equals_the_float64_cosine_at_every_magnitude(size: float) -> None:
    frames = drifting_frames(4, 11, 301, seed=3)
    frames = frames / frames.abs().max() * size
    expected = torch.nn.functional.cosine_similarity(frames[1:].double(), frames[:-1].double(), dim=-1, eps=0)
    assert torch.allclose(similarity(frames[1:], frames[:-1]).double(), expected, atol=1e-6, rtol=0)


def test_equal_vectors_are_exactly_alike_and_zero_vectors_like_nothing() -> None:
    x = torch.randn(50, 77)
    zero = torch.zeros(50, 77)
    assert similarity(x, x).tolist() == [1.0] * 50
    assert similarity(x, -x).tolist() == [-1.0] * 50
    for pair in ((x, zero), (zero, x), (zero, zero)):
        assert similarity(*pair).tolist() == [0.0] * 50


def test_arguments_are_left_alone_and_the_reference_owns_its_memory() -> None:
    frames = drifting_frames(3, 6, 8, seed=4)
    before = frames.clone()
    for rule in RULES:
        result = drop(frames, before[0], rule)
        assert result.reference.untyped_storage().nbytes() == result.reference.nbytes
        assert result.reference.untyped_storage().data_ptr() != frames.untyped_storage().data_ptr()
    assert torch.equal(frames, before)


def test_a_still_frame_keeps_its_single_least_similar_patch_the_first_such_on_ties() -> None:
    still = torch.randn(5, 16)
    assert drop(still[None], still, DropRule()).keep.tolist() == [[True, False, False, False, False]]
    nudged = still.clone()
    nudged[3] += 0.05 * torch.randn(16)
    assert drop(nudged[None], still, DropRule()).keep.tolist() == [[False, False, False, True, False]]


def test_a_stream_starts_with_a_whole_frame_and_so_does_a_new_grid() -> None:
    frames = torch.ones(2, 4, 8)
    assert drop(frames, None, DropRule()).keep.sum(1).tolist() == [4, 1]
    assert drop(frames, torch.ones(9, 8), DropRule()).keep.sum(1).tolist() == [4, 1]


def test_tau_above_one_keeps_everything() -> None:
    frames = torch.ones(3, 4, 8)
    assert bool(drop(frames, frames[0], DropRule(tau=1.01)).keep.all())


def test_slow_drift_escapes_the_previous_frame_but_not_the_last_kept_token() -> None:
    angles = torch.linspace(0, math.pi, 60)
    frames = torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None, :].repeat(1, 2, 1)
    frames[:, 0] = frames[0, 0]
    frames[::2, 0] *= -1  # patch 0 flips in every frame, so no frame needs its least similar patch kept
    assert drop(frames, None, DropRule(reference="previous")).keep[:, 1].sum() == 1
    kept = drop(frames, None, DropRule(reference="last_kept")).keep[:, 1].nonzero()[:, 0]
    assert [round(math.degrees(angles[i].item()) / 60) for i in kept] == [0, 1, 2]  # once per 60 degrees: cos = tau


def test_adaptive_threshold_splits_two_hills_between_them() -> None:
    base = torch.zeros(8, 2)
    base[:, 0] = 1.0
    cosines = torch.tensor([0.60, 0.61, 0.62, 0.63, 0.90, 0.91, 0.92, 0.93])
    frame = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=-1)
    fixed = drop(frame[None], base, DropRule(tau=0.55))
    adaptive = drop(frame[None], base, DropRule(tau=0.55, adaptive=True))
    assert fixed.keep.sum() == 1
    assert adaptive.keep.tolist() == [[True] * 4 + [False] * 4]


def test_adaptive_threshold_stays_near_tau_and_leaves_a_single_hill_to_tau() -> None:
    base = torch.zeros(4, 2)
    base[:, 0] = 1.0
    high = torch.tensor([0.80, 0.80, 0.99, 0.99])
    frame = torch.stack([high, (1 - high**2).sqrt()], dim=-1)
    rule = DropRule(tau=0.5, adaptive=True)
    assert 0.5 + ADAPTIVE_REACH < 0.8  # Otsu alone would split at 0.9 and keep two
    assert drop(frame[None], base, rule).keep.tolist() == [[True, False, False, False]]
    one_hill = torch.tensor([[0.4, math.sqrt(1 - 0.16)]]).repeat(4, 1)
    assert bool(drop(one_hill[None], base, rule).keep.all())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("reference", ["previous", "last_kept"])
def test_broken_features_name_the_first_bad_frame(bad: float, reference: str) -> None:
    frames = torch.randn(5, 3, 4)
    frames[2, 1, 3] = bad
    frames[4, 0, 0] = bad
    with pytest.raises(InvalidFeatures, match="offset 2") as caught:
        drop(frames, None, DropRule(reference=reference))  # type: ignore[arg-type]
    assert caught.value.ids == {"frame_offset": 2}


@pytest.mark.parametrize("tau", [math.nan, math.inf, -1.5])
def test_a_senseless_tau_is_refused(tau: float) -> None:
    with pytest.raises(InvalidConfig, match="tau"):
        DropRule(tau=tau)


def test_an_unknown_reference_and_misshapen_tensors_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="reference"):
        DropRule(reference="next")  # type: ignore[arg-type]
    for features, reference in [
        (torch.zeros(0, 3, 4), None),
        (torch.zeros(3, 4), None),
        (torch.zeros(1, 3, 4, dtype=torch.long), None),
        (torch.zeros(1, 3, 4), torch.zeros(3, 5)),
        (torch.zeros(1, 3, 4), torch.zeros(3, 4, dtype=torch.float16)),
    ]:
        with pytest.raises(ValueError):
            drop(features, reference, DropRule())


def test_keep_rate_is_the_share_kept() -> None:
    assert keep_rate(torch.tensor([[True, False], [False, False]])) == 0.25
    assert keep_rate(torch.zeros(0, 4, dtype=torch.bool)) == 1.0
