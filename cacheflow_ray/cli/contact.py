"""A contact sheet: the pictures an answer rests on, with their times and scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from cacheflow_ray.cli.output import clock

#: Thumbnail (JPEG bytes) or None, start and end in seconds, score (higher is better; None for the window).
Item = tuple[bytes | None, float, float, float | None]

INK, GREY, FAINT, ACCENT = "#1d2433", "#6b7385", "#e4e7ee", "#1f6feb"
_CELL_W, _PICTURE_H, _CAPTION_H = 320, 180, 64
_GAP, _MARGIN, _COLUMNS = 24, 40, 4
_TITLE_LINES = 3


def contact_sheet(items: Sequence[Item], *, title: str, names: Sequence[str] = ()) -> bytes:
    """PNG bytes; items in the order given, up to four to a row. An item without a picture keeps its place.

    Args:
        names: a line more for each item.
    """
    columns = 3 if len(items) in (5, 6, 9) else min(_COLUMNS, max(2, len(items)))
    rows = max(1, -(-len(items) // columns))
    width = 2 * _MARGIN + columns * _CELL_W + (columns - 1) * _GAP
    lines = _wrapped(title, _font(26, bold=True), width - 2 * _MARGIN)
    top = _MARGIN + 36 * len(lines) + (16 if lines else 0)
    height = top + rows * (_PICTURE_H + _CAPTION_H) + (rows - 1) * _GAP + _MARGIN - 12
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN - 6 + 36 * i), line, font=_font(26, bold=True), fill=INK)
    if not items:
        draw.text((_MARGIN, top), "No evidence.", font=_font(20), fill=GREY)
    best = max((item[3] or 0.0 for item in items), default=0.0)
    tenths = any(end_s - start_s < 2 for _, start_s, end_s, _ in items)
    for i, item in enumerate(items):
        x = _MARGIN + i % columns * (_CELL_W + _GAP)
        y = top + i // columns * (_PICTURE_H + _CAPTION_H + _GAP)
        sheet.paste(_picture(item[0]), (x, y))
        _caption(draw, (x, y + _PICTURE_H), item, best, tenths)
        if names:
            name = _shortened(names[i], _font(16), _CELL_W, is_cut=False)
            draw.text((x, y + _PICTURE_H + 42), name, font=_font(16), fill=GREY)
    out = io.BytesIO()
    sheet.save(out, format="PNG")
    return out.getvalue()


def decoded(thumbnail: bytes | None) -> Image.Image | None:
    """The picture in `thumbnail`, or None where there is none (or none that can be read)."""
    if thumbnail is None:
        return None
    try:
        return Image.open(io.BytesIO(thumbnail)).convert("RGB")
    except OSError:
        return None


def _picture(thumbnail: bytes | None) -> Image.Image:
    """Fitted whole into the cell, on a faint ground."""
    cell = Image.new("RGB", (_CELL_W, _PICTURE_H), FAINT)
    picture = decoded(thumbnail)
    if picture is None:
        ImageDraw.Draw(cell).text((_CELL_W / 2, _PICTURE_H / 2), "no picture", font=_font(16), fill=GREY, anchor="mm")
        return cell
    fitted = ImageOps.contain(picture, (_CELL_W, _PICTURE_H), Image.Resampling.LANCZOS)
    cell.paste(fitted, ((_CELL_W - fitted.width) // 2, (_PICTURE_H - fitted.height) // 2))
    return cell


def _caption(draw: ImageDraw.ImageDraw, corner: tuple[int, int], item: Item, best: float, tenths: bool) -> None:
    """Times on the left, the score on the right, and its length relative to the best as a bar beneath the picture."""
    x, y = corner
    _, start_s, end_s, score = item
    draw.rectangle((x, y, x + _CELL_W - 1, y + 5), fill=FAINT)
    if best > 0 and score is not None and score > 0:
        draw.rectangle((x, y, x + max(2, round(_CELL_W * score / best)) - 1, y + 5), fill=ACCENT)
    times = f"{clock(start_s, tenths=tenths)} – {clock(end_s, tenths=tenths)}"
    draw.text((x, y + 18), times, font=_font(19, bold=True), fill=INK)
    worth = "window" if score is None else f"score {score:.3g}"
    draw.text((x + _CELL_W, y + 20), worth, font=_font(16), fill=GREY, anchor="ra")


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines that fit the width; of a text too long for the title's lines the rest is cut with an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    is_cut = len(lines) > _TITLE_LINES
    lines = lines[:_TITLE_LINES]
    return [_shortened(line, font, width, is_cut and i == len(lines) - 1) for i, line in enumerate(lines)]


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int, is_cut: bool) -> str:
    if not is_cut and font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow has no font of its own with bold and all letters."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
