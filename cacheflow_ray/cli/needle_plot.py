"""The needle evaluation as one picture: accuracy over length, a line per method."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

if TYPE_CHECKING:
    from cacheflow_ray.eval.needle.rows import Row

#: Lines people look for are strong; what they are compared with is thin.
_STRONG = ("ours", "oracle", "full")


def plot(rows: Sequence[Row], title: str) -> bytes:
    """A PNG; intervals of 95 % as bars, methods in the order of the rows. Where K differs, K is in the name."""
    several = len({row.top_k for row in rows}) > 1
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(f"{row.method}, K = {row.top_k}" if several else row.method, []).append(row)
    figure = Figure(figsize=(9, 5.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, own) in enumerate(lines.items()):
        frames, right = [row.frames for row in own], [100 * row.accuracy for row in own]
        reach = [
            [100 * (row.accuracy - row.ci[0]) for row in own],
            [100 * (row.ci[1] - row.accuracy) for row in own],
        ]
        strong = own[0].method in _STRONG
        axes.errorbar(
            frames, right, yerr=reach, label=name, marker="o" if strong else ".", linewidth=2.4 if strong else 1.2,
            capsize=2, color=f"C{number % 10}", linestyle="-" if number < 10 else "--",
        )  # fmt: skip
    lengths = sorted({row.frames for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 102)
    axes.set_xlabel("frames of the stream, at one per second")
    axes.set_ylabel("right answers, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    FigureCanvasAgg(figure)
    with io.BytesIO() as out:
        figure.savefig(out, format="png")
        return out.getvalue()
