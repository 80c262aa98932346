"""Dynamic Token Dropping: which patches of a frame are new enough to remember (CacheFlow §3.1).

    s[t, p] = cos(x[t, p], reference[p]);   keep patch p of frame t  iff  s[t, p] < tau

The published rule compares with the previous frame. Beyond it, each off by default: comparing with the last KEPT token
of the position (bounds slow drift) and a threshold found in every frame's own similarities (Otsu).

A decision must not depend on how frames were grouped into calls, or a resumed stream would differ from an uninterrupted
one. Library reductions choose their summation order by shape; so the sums here are a fixed tree of elementwise
additions, which rounds alike for every batch, thread count and device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cacheflow_ray.errors import InvalidConfig, InvalidFeatures

#: The adaptive threshold stays within tau +- this: a histogram of one hill (a still frame, a cut) has no meaningful
#: split, and without the bound Otsu would keep half of the noise.
ADAPTIVE_REACH = 0.25

#: A threshold no cosine reaches: nothing is dropped.
KEEP_ALL = 2.0

_NUM_BINS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRule:
    """How frames are thinned.

    Args:
        tau: a patch is kept when its similarity is below this; at least -1. Above 1 every token is kept.
        reference: compare with the `previous` frame (the paper) or with the `last_kept` token of the same position.
        adaptive: per frame, replace tau by Otsu's threshold on the frame's similarities (128 bins over -1..1), clamped
            to tau +- ADAPTIVE_REACH; a frame whose similarities share one bin keeps tau.

    Raises:
        InvalidConfig: tau is not a finite number >= -1, or the reference is neither of the two.
    """

    tau: float = 0.5
    reference: Literal["previous", "last_kept"] = "previous"
    adaptive: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tau) and self.tau >= -1):
            raise InvalidConfig(
                f"tau must be a number from -1 up (above 1 keeps everything), not {self.tau}", key="tau"
            )
        if self.reference not in ("previous", "last_kept"):
            raise InvalidConfig(f"reference must be 'previous' or 'last_kept', not {self.reference!r}", key="reference")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DropResult:
    """What to keep of F frames, and what the next frame is to be compared with.

    Args:
        keep: [F, P] bool; every frame has at least one True.
        reference: [P, C] in the features' dtype, own memory; belongs into the stream's state.
    """

    keep: Tensor
    reference: Tensor


def similarity(features: Tensor, reference: Tensor) -> Tensor:
    """Cosine per patch, float32 in -1..1; exactly 1 between equal vectors and 0 wherever a vector is zero.

    Args:
        features, reference: [..., P, C] of any floating dtypes, finite, broadcastable to each other.

    Returns:
        [..., P] float32.
    """
    x, y = _scaled(features), _scaled(reference)
    # sqrt(a * a) is a in IEEE arithmetic, sqrt(a) * sqrt(a) is not: this form gives equal vectors exactly 1.
    norms = (_sum_last(x * x) * _sum_last(y * y)).sqrt()
    cosine = _sum_last(x * y) / norms.where(norms > 0, 1.0)
    return cosine.clamp(-1.0, 1.0)


def drop(features: Tensor, reference: Tensor | None, rule: DropRule) -> DropResult:
    """Decide for F successive frames of a stream which tokens stay (CacheFlow §3.1).

    The first frame of a stream is kept whole. A frame that would lose every token keeps its least similar one (the
    first such). Calls chain: the same frames give bitwise the same decisions in one call or in many.

    Args:
        features: [F, P, C], F >= 1: what the language model would receive for each patch.
        reference: [P, C], the `reference` of the call before; None at a stream's start. One with another P counts as
            None: the frame grid changed. (A grid turned on its side has the same P: then the caller passes None.)

    Raises:
        InvalidFeatures: NaN or infinity in a frame, named by its offset in this call.
        ValueError: shapes or dtypes that do not fit together.
    """
    _check(features, reference)
    features = features.detach()
    if reference is not None and len(reference) != features.shape[1]:
        reference = None
    if rule.reference == "previous":
        return _drop_by_previous(features, reference, rule)
    return _drop_by_last_kept(features, reference, rule)


def keep_rate(keep: Tensor) -> float:
    """Share of True in a bool mask, 0..1; 1 for an empty mask, of which nothing was dropped."""
    return float(keep.double().mean()) if keep.numel() else 1.0


def _drop_by_previous(features: Tensor, reference: Tensor | None, rule: DropRule) -> DropResult:
    keep = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    if reference is not None:
        keep[:1] = _select(similarity(features[:1], reference), rule)
    if len(features) > 1:
        keep[1:] = _select(similarity(features[1:], features[:-1]), rule)
    return DropResult(keep=keep, reference=features[-1].clone())


def _drop_by_last_kept(features: Tensor, reference: Tensor | None, rule: DropRule) -> DropResult:
    keep = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    for frame, kept in zip(features, keep, strict=True):
        if reference is None:
            reference = frame.clone()
            continue
        kept.copy_(_select(similarity(frame, reference), rule))
        reference = torch.where(kept[:, None], frame, reference)
    assert reference is not None  # F >= 1
    return DropResult(keep=keep, reference=reference)


def _select(scores: Tensor, rule: DropRule) -> Tensor:
    """Tokens to keep by their similarity [..., P], at least one per frame."""
    keep = scores < (_otsu(scores, rule.tau) if rule.adaptive else rule.tau)
    # The least similar token is below the threshold already unless no token is.
    return keep.scatter(-1, scores.argmin(dim=-1, keepdim=True), True)


def _otsu(scores: Tensor, tau: float) -> Tensor:
    """Otsu's threshold of each frame's similarities: [..., P] -> [..., 1] float64, within tau +- ADAPTIVE_REACH.

    Everything before the last division is a whole number below 2**53, hence exact and blind to summation order.
    """
    bins = ((scores + 1) * (_NUM_BINS / 2)).long().clamp(0, _NUM_BINS - 1)
    counts = scores.new_zeros((*scores.shape[:-1], _NUM_BINS), dtype=torch.long)
    counts.scatter_add_(-1, bins, torch.ones_like(bins))
    below = counts.cumsum(-1)
    mass = (counts * torch.arange(_NUM_BINS, device=scores.device)).cumsum(-1)
    above = below[..., -1:] - below
    distance = (mass * below[..., -1:] - mass[..., -1:] * below).double()
    spread = torch.where(above * below > 0, distance * distance / (above * below).clamp(min=1), 0.0)
    # Every empty bin between two hills scores alike and splits the tokens alike: the first will do.
    edge = (spread.argmax(dim=-1, keepdim=True) + 1).double() * 2 / _NUM_BINS - 1
    split = spread.amax(dim=-1, keepdim=True) > 0
    return edge.where(split, tau).clamp(tau - ADAPTIVE_REACH, tau + ADAPTIVE_REACH)


def _scaled(vectors: Tensor) -> Tensor:
    """Float32 copies of [..., C] whose largest component is 1 in size, so that no square over- or underflows."""
    values = vectors.float()
    largest = values.abs().amax(dim=-1, keepdim=True)
    return values / largest.where(largest > 0, 1.0)


def _sum_last(values: Tensor) -> Tensor:
    """Sum over the last axis by folding it in half again and again; overwrites `values`."""
    width = values.shape[-1]
    while width > 1:
        half = (width + 1) // 2
        values[..., : width - half] += values[..., half:width]
        width = half
    return values[..., 0]


def _check(features: Tensor, reference: Tensor | None) -> None:
    if features.ndim != 3 or not features.numel() or not features.is_floating_point():
        raise ValueError(f"features {list(features.shape)} of {features.dtype} are not floating [F, P, C], F >= 1")
    if reference is not None and (reference.ndim != 2 or reference.shape[1] != features.shape[2]):
        raise ValueError(f"reference {list(reference.shape)} is not [P, {features.shape[2]}]")
    if reference is not None and reference.dtype != features.dtype:
        raise ValueError(f"reference of {reference.dtype} beside features of {features.dtype}")
    finite = features.isfinite().all(dim=2).all(dim=1)
    if not bool(finite.all()):
        offset = int((~finite).nonzero()[0, 0])
        raise InvalidFeatures(
            f"the vision features of the frame at offset {offset} hold NaN or infinity: "
            "load the model in bfloat16 or float32",
            frame_offset=offset,
        )
