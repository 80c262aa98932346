"""What a command prints: people read text, programs read one JSON object.

stdout   the result: text as it comes, or with --json exactly one JSON object, last
stderr   progress, notes and errors
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where a command's words go.

    Args:
        as_json: keep stdout for the one object given to `result`; text for people goes to stderr or nowhere.
    """

    as_json: bool

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line of the result for people; with --json nothing."""
        if not self.as_json:
            Console().print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def piece(self, text: str) -> None:
        """A piece of a line, shown at once; with --json nothing."""
        if not self.as_json:
            sys.stdout.write(printable(text))
            sys.stdout.flush()

    def table(self, headings: Mapping[str, str], rows: Sequence[tuple[str, ...]]) -> None:
        """Rows under headings (heading -> 'left' or 'right'), never cut or folded; with --json nothing."""
        lines = [tuple(headings), *rows]
        widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = zip(line, widths, headings.values(), strict=True)
            padded = [cell.rjust(width) if side == "right" else cell.ljust(width) for cell, width, side in cells]
            self.say("  ".join(padded).rstrip())

    def note(self, text: str) -> None:
        """A message beside the result, on stderr."""
        err_console().print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        err_console().print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def error(self, text: str) -> None:
        err_console().print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)

    def result(self, value: Any) -> None:
        """The object --json promises; without --json nothing."""
        if self.as_json:
            sys.stdout.write(json.dumps(to_json(value), ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()


def to_json(value: Any) -> Any:
    """Dataclasses, sections, paths and numpy scalars as JSON values; what JSON cannot say (NaN, infinity) is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if hasattr(value, "keep_rate"):
            fields["keep_rate"] = value.keep_rate
        return to_json(fields)
    if hasattr(value, "model_dump"):
        return to_json(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | range):
        return [to_json(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        return to_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value) if isinstance(value, Path) else repr(value)


def printable(text: str) -> str:
    """`text` without control characters: a model's words must not steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def err_console() -> Console:
    return Console(stderr=True)


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off stderr; what the user set is left alone."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def clock(seconds: float | None, *, tenths: bool = False) -> str:
    """A time as a player shows it: 0:07, 12:34, 1:02:03; with tenths 0:07.4; '-' for None."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    units = round(seconds * 10) if tenths else round(seconds) * 10
    minutes, rest = divmod(units // 10, 60)
    text = f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    return f"{text}.{units % 10}" if tenths else text


def size(num_bytes: float) -> str:
    """812 B, 3.4 MB: decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
