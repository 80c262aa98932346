"""Pictures of what a stream holds (`timeline`) and of what an answer rests on (`contact_sheet`), as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator, PercentFormatter

from cacheflow_ray.cli.contact import ACCENT, FAINT, GREY, INK, contact_sheet, decoded
from cacheflow_ray.cli.output import clock
from cacheflow_ray.cli.raster import Raster, rasterise
from cacheflow_ray.errors import NothingToAnswer
from memory_store.records import Array

__all__ = ["Drawable", "Layout", "contact_sheet", "timeline"]

_WIDTH_IN, _DPI = 12.0, 150
_STRIP_IN, _RASTER_IN, _CURVE_IN = 1.0, 3.6, 1.3
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _GAP_IN = 0.85, 0.35, 0.85, 0.55, 0.2
_MAX_BOUNDARIES = 40
_MAX_CELLS = 60
_MAX_TITLE = 76
_RATE_LIMITS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


class Drawable(Protocol):
    """A stored block as a picture needs it; `tokens` is [B] of TOKEN_DTYPE."""

    @property
    def block_idx(self) -> int: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def tokens(self) -> Array: ...
    @property
    def thumbnail(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Patches of a frame: rows and columns, and how many frames share them where the model merges frames in time."""

    grid: tuple[int, int]
    frames_per_unit: int = 1


def timeline(blocks: Sequence[Drawable], *, layout: Layout, title: str) -> bytes:
    """PNG: thumbnails, below them which patches of which frames were kept, below that the keep rate over time.

        [img]     [img]     [img]     [img]      one per stretch, centred on its time
        |#..#.#|..#..#|#....#|..##..|            x frames, y patches row by row; | a block begins
        |\\_/\\___|___/\\_|_/\\___|______|            share of tokens kept

    Frames and patches are binned beyond what can be told apart, and of many block boundaries only some are drawn.

    Raises:
        NothingToAnswer: there are no blocks.
    """
    if not blocks:
        raise NothingToAnswer("there is no block to draw yet: the stream needs more video")
    raster = rasterise(np.concatenate([block.tokens for block in blocks]), layout.grid, layout.frames_per_unit)
    pictures = any(block.thumbnail is not None for block in blocks)
    figure, axes = _page([_STRIP_IN] * pictures + [_RASTER_IN, _CURVE_IN])
    patches, curve = axes[-2:]
    _draw_patches(patches, raster, layout)
    _draw_keep_rate(curve, raster)
    step = _draw_boundaries(patches, curve, blocks)
    if pictures:
        _draw_strip(axes[0], blocks, raster)
    _head(figure, title, raster, blocks, step)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, facecolor="white")
    return out.getvalue()


def _page(heights_in: list[float]) -> tuple[Figure, list[Axes]]:
    """A figure with axes one below the other, of these heights; the lines of text above and below have fixed room."""
    height = _TOP_IN + sum(heights_in) + _GAP_IN * (len(heights_in) - 1) + _BOTTOM_IN
    figure = Figure(figsize=(_WIDTH_IN, height))
    FigureCanvasAgg(figure)
    axes, top = [], height - _TOP_IN
    width = (_WIDTH_IN - _LEFT_IN - _RIGHT_IN) / _WIDTH_IN
    for part in heights_in:
        axes.append(figure.add_axes((_LEFT_IN / _WIDTH_IN, (top - part) / height, width, part / height)))
        top -= part + _GAP_IN
    return figure, axes


def _plain(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=9, labelcolor=GREY)


def _draw_patches(axes: Axes, raster: Raster, layout: Layout) -> None:
    rows, columns = layout.grid
    colours = LinearSegmentedColormap.from_list("kept", ["#f3f5f9", "#8fb8f5", ACCENT, "#0b2f73"]).with_extremes(
        bad="white"
    )
    borders = np.linspace(0, rows, len(raster.share) + 1)
    norm = PowerNorm(0.6, vmin=0, vmax=1)  # most bins are nearly empty: a low share must show
    share = np.ma.masked_invalid(raster.share)
    axes.pcolormesh(raster.edges_s, borders, share, cmap=colours, norm=norm, shading="flat")
    if len(raster.keep_rate) <= _MAX_CELLS:  # few enough to be told apart one by one
        axes.vlines(raster.edges_s, 0, rows, color="white", linewidth=1.5)
    axes.set_xlim(raster.edges_s[0], raster.edges_s[-1])
    axes.set_ylim(rows, 0)
    axes.set_ylabel(f"patch row ({columns} patches each)", color=GREY, fontsize=9)
    axes.yaxis.set_major_locator(MultipleLocator(max(1, -(-rows // 7))))
    axes.set_xticks([])
    _plain(axes)


def _draw_keep_rate(axes: Axes, raster: Raster) -> None:
    axes.stairs(raster.keep_rate, raster.edges_s, fill=True, color=ACCENT, alpha=0.18, linewidth=0)
    axes.stairs(raster.keep_rate, raster.edges_s, color=ACCENT, linewidth=1.2, baseline=None)
    axes.axhline(raster.mean_keep_rate, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    top = next(limit for limit in _RATE_LIMITS if np.nanmax(raster.keep_rate) <= limit or limit == _RATE_LIMITS[-1])
    label = axes.text(
        *(0.997, raster.mean_keep_rate + 0.03 * top),
        f"mean {raster.mean_keep_rate:.1%}",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom" if raster.mean_keep_rate < 0.8 * top else "top",
        fontsize=9,
        color=INK,
    )
    label.set_path_effects([withStroke(linewidth=3, foreground="white")])
    axes.set_xlim(raster.edges_s[0], raster.edges_s[-1])
    axes.set_ylim(0, 1.02 * top)
    axes.yaxis.set_major_locator(FixedLocator([0, top / 2, top]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if top >= 0.2 else 1))
    axes.set_ylabel("tokens kept", color=GREY, fontsize=9)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    _plain(axes)
    axes.tick_params(axis="x", pad=7)
    _time_axis(axes, float(raster.edges_s[-1] - raster.edges_s[0]))


def _time_axis(axes: Axes, span_s: float) -> None:
    step = next((s for s in _STEPS_S if span_s / s <= 12), 86400 * -(-span_s // (12 * 86400)))
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda s, _: clock(max(s, 0.0), tenths=step < 1)))
    axes.set_xlabel("time in the video", color=GREY, fontsize=9)


def _draw_boundaries(patches: Axes, curve: Axes, blocks: Sequence[Drawable]) -> int:
    """A line where a block begins, the block's number above it; of many blocks every n-th. Returns n."""
    step = next(n * 10**p for p in range(12) for n in (1, 2, 5) if len(blocks) <= _MAX_BOUNDARIES * n * 10**p)
    drawn = [block for block in blocks if block.block_idx % step == 0]
    for axes in (patches, curve):
        low, high = axes.get_ylim()
        axes.vlines([block.start_s for block in drawn], low, high, color=INK, linewidth=0.7, alpha=0.55)
    left, right = patches.get_xlim()
    last_s = -np.inf
    for block in drawn:
        if block.start_s - last_s < (right - left) / 40:
            continue  # blocks of a busy second would write over one another
        last_s = block.start_s
        above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (2, 2), "textcoords": "offset points"}
        patches.annotate(str(block.block_idx), (block.start_s, 1), fontsize=7.5, color=GREY, **above)
    return int(step)


def _draw_strip(axes: Axes, blocks: Sequence[Drawable], raster: Raster) -> None:
    """Thumbnails side by side, each with its time: all blocks if they fit, else blocks evenly spread over time."""
    width_in = _WIDTH_IN - _LEFT_IN - _RIGHT_IN
    sizes = [image.size for image in (decoded(block.thumbnail) for block in blocks[:1]) if image is not None]
    ratio = sizes[0][0] / sizes[0][1] if sizes else 16 / 9
    height_in = min(0.86 * _STRIP_IN, 2.2 / ratio)
    slots = max(1, int(width_in / (ratio * height_in + 0.12)))
    for slot, block in _spread(blocks, slots, raster):
        image = decoded(block.thumbnail)
        if image is None:
            continue
        half = min(height_in * image.width / image.height, width_in / slots) / 2
        x = (slot + 0.5) / slots * width_in
        low, high = 0.1, 0.1 + 2 * half * image.height / image.width
        axes.imshow(np.asarray(image), extent=(x - half, x + half, low, high), aspect="auto")
        label = {"facecolor": INK, "alpha": 0.7, "linewidth": 0, "pad": 1.5}
        axes.text(x - half + 0.04, low + 0.05, clock(block.start_s), fontsize=7.5, color="white", bbox=label)
    axes.set_xlim(0, width_in)
    axes.set_ylim(0, _STRIP_IN)
    axes.set_axis_off()


def _spread(blocks: Sequence[Drawable], slots: int, raster: Raster) -> list[tuple[int, Drawable]]:
    """Slot and block of each thumbnail; a block stands once."""
    if len(blocks) <= slots:
        return list(enumerate(blocks))
    ends = np.array([block.end_s for block in blocks])
    centres = np.interp((np.arange(slots) + 0.5) / slots, (0, 1), (raster.edges_s[0], raster.edges_s[-1]))
    places = np.minimum(np.searchsorted(ends, centres), len(blocks) - 1)
    return [(slot, blocks[at]) for slot, at in enumerate(places) if slot == 0 or at != places[slot - 1]]


def _head(figure: Figure, title: str, raster: Raster, blocks: Sequence[Drawable], step: int) -> None:
    height = figure.get_figheight()
    title = title if len(title) <= _MAX_TITLE else title[: _MAX_TITLE - 1] + "…"
    x = _LEFT_IN / _WIDTH_IN
    span = clock(float(raster.edges_s[-1] - raster.edges_s[0]))
    facts = [
        f"{_counted(raster.num_frames, 'frame')} in {span}",
        f"{_counted(raster.num_kept, 'token')} kept ({raster.mean_keep_rate:.1%})",
        _counted(len(blocks), "block") + (f", one in {step} marked" if step > 1 else ""),
    ]
    if raster.frames_per_column > 1:
        facts.append(f"{raster.frames_per_column} frames to a column")
    figure.text(x, 1 - 0.28 / height, title, fontsize=14, fontweight="bold", color=INK, va="center", parse_math=False)
    figure.text(x, 1 - 0.54 / height, "  ·  ".join(facts), fontsize=10, color=GREY, va="center")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
