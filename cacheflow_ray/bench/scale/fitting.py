"""Seconds (or bytes) as a sum of non-negative costs of what was done: least squares over a few runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

#: What was done, by name: how many frames, blocks, calls.
Amounts = Mapping[str, float]
#: Cost of one of each.
Rates = Mapping[str, float]

#: Always 1: what is paid however little is done.
ONCE = "once"


def fit(runs: Sequence[tuple[Amounts, float]], names: Sequence[str]) -> dict[str, float]:
    """Costs of `names` that come nearest to what the runs took, as shares of each; no cost is below zero.

    Args:
        runs: what was done, and what it took.

    A name whose best cost would be negative is left out, the most negative first, and gets 0. Runs weigh by their
    relative error, so that a short one counts as much as a long one.
    """
    left = list(names)
    while left:
        rows = np.array([[amount_of(amounts, name) / max(took, 1e-12) for name in left] for amounts, took in runs])
        scale = np.maximum(np.abs(rows).max(axis=0), 1e-30)
        solved = np.linalg.lstsq(rows / scale, np.ones(len(runs)), rcond=None)[0] / scale
        if solved.min() >= 0:
            found = dict(zip(left, map(float, solved), strict=True))
            return {name: found.get(name, 0.0) for name in names}
        left.pop(int((solved * scale).argmin()))
    return dict.fromkeys(names, 0.0)


def amount_of(amounts: Amounts, name: str) -> float:
    """0 where it was not done."""
    return 1.0 if name == ONCE else amounts.get(name, 0.0)


def cost(rates: Rates, amounts: Amounts) -> float:
    """What so much costs."""
    return sum(rate * amount_of(amounts, name) for name, rate in rates.items())
