"""The key summary: the few vectors by which a block is found again (CacheFlow §3.3, "compressive memory").

A summary reads a block's un-rotated keys token by token and keeps V vectors per kv-head; a question's queries become
one vector per kv-head, and a block's score is the best cosine of its V. Full K and V are stored elsewhere, lossless.
All forms but the centroids are recurrences along the block; S is the number of summarised layers (first and last).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from cacheflow_ray.errors import InvalidConfig


class Summary(Protocol):
    """Turns block keys and question queries into vectors that cosine compares. Holds no state, changes no argument."""

    @property
    def name(self) -> str:
        """The name under which a stream remembers which summary its vectors came from."""

    @property
    def vectors_per_block(self) -> int:
        """V."""

    def summarise(self, keys: Tensor) -> Tensor:
        """Un-rotated keys [N, S, H, B, D] of N blocks, any floating dtype -> float32 [N, S, V, H, D].

        Raises:
            ValueError: the keys have another shape.
        """

    def query(self, queries: Tensor) -> Tensor:
        """Un-rotated queries [S, H, T, D] of the question's T >= 1 tokens -> float32 [S, H, D].

        Grouped query heads are averaged onto their kv-head beforehand.

        Raises:
            ValueError: the queries have another shape.
        """


class MeanKey:
    """One vector: the running average of the block's keys. The query is the mean over T."""

    name = "mean"
    vectors_per_block = 1

    def summarise(self, keys: Tensor) -> Tensor:
        _check_keys(keys)
        return keys.mean(dim=3, dtype=torch.float32).unsqueeze(2)

    def query(self, queries: Tensor) -> Tensor:
        return _mean_query(queries)


class _Several:
    """What the summaries of V means share: their name, the check of V, and the mean query."""

    _kind: ClassVar[str]

    def __init__(self, vectors_per_block: int) -> None:
        if vectors_per_block < 1:
            raise InvalidConfig(f"a summary needs at least 1 vector per block, not {vectors_per_block}", key="summary")
        self.vectors_per_block = vectors_per_block
        self.name = f"{self._kind}{vectors_per_block}"

    def query(self, queries: Tensor) -> Tensor:
        """As `Summary.query`."""
        return _mean_query(queries)


class SegmentMeans(_Several):
    """Running averages that start over V times along the block, each emitting its last state.

    h_i = h_(i-1) + (k_i - h_(i-1)) / i ends at the mean of its segment, so the means are computed at once. Segments are
    as equal as B allows, the longer ones first. The query is the mean over T.

    Raises:
        InvalidConfig: fewer than one vector; from `summarise`, a block with fewer tokens than vectors.
    """

    _kind = "segments"

    def summarise(self, keys: Tensor) -> Tensor:
        _check_length(keys, self)
        segments = keys.tensor_split(self.vectors_per_block, dim=3)
        return torch.stack([segment.mean(dim=3, dtype=torch.float32) for segment in segments], dim=2)


class ChangeGated(_Several):
    """A gated recurrence that starts anew where the block changes, and emits its state V times.

    h_i = (1 - z_i) h_(i-1) + z_i k_i, with z_i = 1 where the gate opens and 1 / n in a stretch of n tokens so far;
    the state is emitted before each opening and at the end. The gate opens at the V - 1 tokens least like the one
    before them (mean cosine over heads): a stretch is what packing put side by side because it looked alike, one thing
    at one moment. Equal likeness: the earlier token. With V = B every key is emitted, with V = 1 their mean. The query
    is the mean over T.

    Raises:
        InvalidConfig: fewer than one vector; from `summarise`, a block with fewer tokens than vectors.
    """

    _kind = "recurrent"

    def summarise(self, keys: Tensor) -> Tensor:
        _check_length(keys, self)
        keys = keys.float()
        units = torch.nn.functional.normalize(keys, dim=-1)
        likeness = (units[..., 1:, :] * units[..., :-1, :]).sum(-1).mean(2)  # [N, S, B - 1]
        opened = likeness.sort(dim=-1, stable=True).indices[..., : self.vectors_per_block - 1] + 1
        gates = torch.zeros(*likeness.shape[:2], keys.shape[3], dtype=torch.long, device=keys.device)
        stretch = gates.scatter(-1, opened, 1).cumsum(-1)
        share = torch.nn.functional.one_hot(stretch, self.vectors_per_block).to(keys.dtype)  # [N, S, B, V]
        share = share / share.sum(2, keepdim=True)
        return torch.einsum("nsbv,nshbd->nsvhd", share, keys)


class Centroids(_Several):
    """V centres of the block's keys: k-means over unit keys, heads side by side, from V evenly spread tokens.

    A large block holds many frames, and what one thing left in it is not one stretch: centres gather it from all over
    the block. A token belongs to the centre of the largest inner product, the first of equals; a centre that lost all
    its tokens stays; the rounds are of a fixed number. The query is the mean over T.

    Raises:
        InvalidConfig: fewer than one vector; from `summarise`, a block with fewer tokens than vectors.
    """

    _kind = "centroids"
    _ROUNDS = 8

    def summarise(self, keys: Tensor) -> Tensor:
        _check_length(keys, self)
        units = torch.nn.functional.normalize(keys.float(), dim=-1)
        points = units.transpose(2, 3).flatten(3)  # [N, S, B, H * D]
        length = points.shape[2]
        centres = points[:, :, torch.linspace(0, length - 1, self.vectors_per_block).long()]
        for _ in range(self._ROUNDS):
            nearest = (points @ centres.mT).argmax(-1)
            own = torch.nn.functional.one_hot(nearest, self.vectors_per_block).to(points.dtype)
            counts = own.sum(2)[..., None]
            centres = torch.where(counts > 0, (own.mT @ points) / counts.clamp(min=1), centres)
        vectors: Tensor = centres.unflatten(3, (keys.shape[2], -1))
        return vectors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GRUWeights:
    """Weights of one GRU layer, float32; gates in the order r, z, h.

    Args:
        w: [3, D, D] acting on the input; `w[g] @ k`.
        u: [3, D, D] acting on the state.
        b: [3, D].
    """

    w: Tensor
    u: Tensor
    b: Tensor

    @classmethod
    def seeded(cls, head_dim: int, seed: int) -> GRUWeights:
        """Every entry uniform in -1/sqrt(D)..1/sqrt(D) (torch.nn.GRU's rule), drawn in the order w, u, b.

        Drawn by numpy's legacy generator, whose stream is frozen for good: vectors already stored must stay comparable
        after a library upgrade.
        """
        draw = np.random.RandomState(seed)
        bound = head_dim**-0.5
        shapes = ((3, head_dim, head_dim), (3, head_dim, head_dim), (3, head_dim))
        w, u, b = (torch.from_numpy(draw.uniform(-bound, bound, shape).astype(np.float32)) for shape in shapes)
        return cls(w=w, u=u, b=b)


def gru(inputs: Tensor, weights: GRUWeights) -> Tensor:
    """Last state of a gated recurrent unit from h = 0 (CacheFlow §3.3), in float32.

        r = sigmoid(W_r k + U_r h + b_r);      z = sigmoid(W_z k + U_z h + b_z)
        h~ = tanh(W_h k + U_h (r*h) + b_h);    h <- (1-z)*h + z*h~

    This is the paper's unit, not torch.nn.GRU: there z weighs the OLD state and r multiplies after U_h.

    Args:
        inputs: [..., T, D], T >= 1.

    Returns:
        [..., D].
    """
    w, u, b = (part.to(inputs.device) for part in (weights.w, weights.u, weights.b))
    # The inputs' share of all gates for all tokens in one product; only the state's share is sequential.
    driven = torch.einsum("...td,ged->t...ge", inputs.float(), w) + b
    state = torch.zeros_like(driven[0, ..., 0, :])
    for step in driven:
        reset = torch.sigmoid(step[..., 0, :] + state @ u[0].T)
        update = torch.sigmoid(step[..., 1, :] + state @ u[1].T)
        candidate = torch.tanh(step[..., 2, :] + (reset * state) @ u[2].T)
        state = (1 - update) * state + update * candidate
    return state


class RandomGRU:
    """The paper's summary: a frozen random GRU over the block's keys, its last state the only vector.

    One set of weights per head_dim serves all layers and heads. Published text compares it with the raw mean query,
    which we measured to retrieve at chance level; `query_through` sends the question's queries through the same GRU.

    Args:
        head_dim: D.
        seed: of the weights; a seed other than 0 shows in the name, since vectors of two seeds do not compare.
    """

    vectors_per_block = 1

    def __init__(self, head_dim: int, *, query_through: bool = False, seed: int = 0) -> None:
        self.weights = GRUWeights.seeded(head_dim, seed)
        self.query_through = query_through
        self.name = ("gru_query" if query_through else "gru") + (f"@{seed}" if seed else "")

    def summarise(self, keys: Tensor) -> Tensor:
        _check_keys(keys)
        return gru(keys, self.weights).unsqueeze(2)

    def query(self, queries: Tensor) -> Tensor:
        mean = _mean_query(queries)
        return gru(queries, self.weights) if self.query_through else mean


#: Every summary a stream can be made with: name -> factory(head_dim).
SUMMARIES: Final[Mapping[str, Callable[[int], Summary]]] = {
    "mean": lambda _: MeanKey(),
    "segments2": lambda _: SegmentMeans(2),
    "segments4": lambda _: SegmentMeans(4),
    "segments8": lambda _: SegmentMeans(8),
    "segments16": lambda _: SegmentMeans(16),
    "recurrent2": lambda _: ChangeGated(2),
    "recurrent4": lambda _: ChangeGated(4),
    "recurrent8": lambda _: ChangeGated(8),
    "recurrent16": lambda _: ChangeGated(16),
    "centroids4": lambda _: Centroids(4),
    "centroids8": lambda _: Centroids(8),
    "centroids16": lambda _: Centroids(16),
    "gru": lambda head_dim: RandomGRU(head_dim),
    "gru_query": lambda head_dim: RandomGRU(head_dim, query_through=True),
}


def make_summary(name: str, head_dim: int) -> Summary:
    """The summary of that name for keys of `head_dim` channels.

    Raises:
        InvalidConfig: no such summary; the message lists those there are.
    """
    if name not in SUMMARIES:
        raise InvalidConfig(f"no summary is called {name!r}: choose one of {', '.join(SUMMARIES)}", key="summary")
    return SUMMARIES[name](head_dim)


def _check_keys(keys: Tensor) -> None:
    if keys.ndim != 5 or not keys.shape[3] or not keys.is_floating_point():
        raise ValueError(f"keys {list(keys.shape)} of {keys.dtype} are not floating [N, S, H, B, D], B >= 1")


def default_summary(block_size: int) -> str:
    """The most centroids, up to 16, with two tokens or more to each; the mean for blocks of fewer than 8 tokens."""
    return next((f"centroids{count}" for count in (16, 8, 4) if 2 * count <= block_size), MeanKey.name)


def check_block_size(summary: Summary, block_size: int) -> None:
    """Raises InvalidConfig where a block has fewer tokens than the summary has vectors."""
    if block_size < summary.vectors_per_block:
        raise InvalidConfig(
            f"summary {summary.name!r} needs blocks of at least {summary.vectors_per_block} tokens, not {block_size}: "
            "choose larger blocks, or a summary of fewer vectors (mean has one)",
            key="summary",
        )


def _check_length(keys: Tensor, summary: Summary) -> None:
    _check_keys(keys)
    check_block_size(summary, keys.shape[3])


def _mean_query(queries: Tensor) -> Tensor:
    if queries.ndim != 4 or not queries.shape[2] or not queries.is_floating_point():
        raise ValueError(f"queries {list(queries.shape)} of {queries.dtype} are not floating [S, H, T, D], T >= 1")
    return queries.mean(dim=2, dtype=torch.float32)
