"""Options that several commands share, and how a command takes them: as one dataclass each."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from cacheflow_ray.errors import InvalidConfig

if TYPE_CHECKING:
    from cacheflow_ray.config import Defaults, ModelOptions
    from cacheflow_ray.types import TimeRange

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, last, on stdout; messages go to stderr.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which store a command works on."""

    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder of the store. Default: ./cacheflow-data."),
    ] = None

    def folder(self, defaults: Defaults) -> Path:
        return self.data if self.data is not None else defaults.data


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """Which model a command runs, and how."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--checkpoint",
            metavar="M",
            rich_help_panel="Model",
            help="Local folder, Hugging Face name, bundled:<name>, or random:<preset>. Default: bundled:world.",
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            "--device", metavar="DEV", rich_help_panel="Model", help="auto, cpu, cuda or cuda:N. Default: auto."
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            rich_help_panel="Model",
            help="auto, float32, bfloat16 or float16. Default: auto.",
        ),
    ] = None
    attention: Annotated[
        str | None,
        typer.Option("--attention", metavar="KIND", rich_help_panel="Model", help="sdpa or eager. Default: sdpa."),
    ] = None

    def name(self, defaults: Defaults) -> str:
        return self.model if self.model is not None else defaults.model

    def options(self, defaults: Defaults) -> ModelOptions:
        """Raises InvalidConfig."""
        from cacheflow_ray.config import ModelOptions

        given = {"device": self.device, "dtype": self.dtype, "attention": self.attention}
        return ModelOptions.model_validate(
            {key: getattr(defaults, key) if value is None else value for key, value in given.items()}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a stream's time, or of the clock's."""

    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Look only from here on: seconds, M:SS or H:MM:SS, or a date."),
    ] = None
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Look only up to here.")] = None

    def time_range(self) -> TimeRange | None:
        """Of a stream's time; None: all of it, or dates were given.

        Raises:
            InvalidConfig: what is no time. InvalidRecord: a range that ends before it starts.
        """
        return None if self._is_dated else self._range(parse_time)

    def recorded(self) -> TimeRange | None:
        """Of the clock, in Unix seconds; None: always, or times of a stream were given. Raises as `time_range`."""
        return self._range(parse_date) if self._is_dated else None

    @property
    def _is_dated(self) -> bool:
        return any("-" in end for end in (self.start, self.end) if end)

    def _range(self, parse: Callable[[str, str], float]) -> TimeRange | None:
        from cacheflow_ray.types import TimeRange

        if self.start is None and self.end is None:
            return None
        return TimeRange(
            start_s=-math.inf if self.start is None else parse(self.start, "--from"),
            end_s=math.inf if self.end is None else parse(self.end, "--to"),
        )


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with every parameter that is one of our dataclasses spelled out, field by field, for typer to see."""
    hints = get_type_hints(command, include_extras=True)
    packs: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        pack = packs.get(name)
        parameters += _field_parameters(pack) if pack else [_keyword(name, parameter.default, hints[name])]

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        packed = {
            name: pack(**{field.name: values.pop(field.name) for field in dataclasses.fields(pack)})
            for name, pack in packs.items()
        }
        command(**packed, **values)

    del flat.__wrapped__  # or typer would look through it
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _field_parameters(pack: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(pack, include_extras=True)
    return [_keyword(field.name, field.default, hints[field.name]) for field in dataclasses.fields(pack)]


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def parse_time(text: str, option: str) -> float:
    """Seconds of '90', '90.5', '1:30' or '0:01:30'. Raises InvalidConfig naming the option."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise InvalidConfig(f"{option}: {text!r} is not a time; allowed: seconds, M:SS or H:MM:SS", key=option)
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def parse_date(text: str, option: str) -> float:
    """Unix seconds of '2026-04-11' or '2026-04-11T08:00+02:00'; UTC without an offset. Raises InvalidConfig."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidConfig(
            f"{option}: {text!r} is not a date; allowed: 2026-04-11 or 2026-04-11T08:00, in UTC or with an offset",
            key=option,
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def parse_range(text: str, option: str) -> TimeRange:
    """The range of 'FROM-TO', as times. Raises InvalidConfig naming the option; InvalidRecord: it ends first."""
    from cacheflow_ray.types import TimeRange

    start, dash, end = text.partition("-")
    if not dash:
        raise InvalidConfig(f"{option}: {text!r} is not a range; allowed: FROM-TO, as 1:00-2:30", key=option)
    return TimeRange(start_s=parse_time(start, option), end_s=parse_time(end, option))


def parse_duration(text: str, option: str) -> float:
    """Seconds of '90', '90s', '15m', '12h', '30d' or '2w'. Raises InvalidConfig naming the option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text)
    if not found:
        raise InvalidConfig(f"{option}: {text!r} is not a duration; allowed: 90, 90s, 15m, 12h, 30d, 2w", key=option)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]


def parse_size(text: str, option: str) -> int:
    """Bytes of '1000', '500MB', '1.5GiB' (decimal units without the i). Raises InvalidConfig naming the option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([KMGTP])(i?)B)?", text)
    if not found:
        raise InvalidConfig(f"{option}: {text!r} is not a size; allowed: 1000, 500MB, 1.5GiB", key=option)
    unit = (1024 if found[3] else 1000) ** (" KMGTP".index(found[2]) if found[2] else 0)
    return int(float(found[1]) * unit)


def parse_counts(pairs: Sequence[str], option: str) -> dict[str, int]:
    """{'max_questions': 128} of ['max_questions=128']. Raises InvalidConfig."""
    counts: dict[str, int] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name or not value.isascii() or not value.isdecimal():
            raise InvalidConfig(f"{option}: {pair!r} is not allowed; allowed: NAME=N, N a whole number", key=option)
        counts[name] = int(value)
    return counts


def parse_labels(pairs: Sequence[str]) -> dict[str, str]:
    """{'room': '3'} of ['room=3']. Raises InvalidConfig."""
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InvalidConfig(f"--label: {pair!r} is not allowed; allowed: NAME=VALUE", key="--label")
        labels[name.strip()] = value
    return labels
