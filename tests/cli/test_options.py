from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from cacheflow_ray.cli.options import Span, flattened, parse_counts, parse_labels, parse_time
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.types import TimeRange
from memory_store.errors import InvalidRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    left: Annotated[int, typer.Option("--left")] = 1
    right: Annotated[str | None, typer.Option("--right")] = None


def test_a_dataclass_parameter_becomes_options() -> None:
    seen: list[object] = []

    def command(
        name: Annotated[str, typer.Argument()], pair: Pair, loud: Annotated[bool, typer.Option()] = False
    ) -> None:
        seen.extend([name, pair, loud])

    app = typer.Typer()
    app.command()(flattened(command))

    result = CliRunner().invoke(app, ["x", "--right", "r", "--loud"])

    assert result.exit_code == 0, result.output
    assert seen == ["x", Pair(left=1, right="r"), True]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90.5", 90.5), ("1:30", 90), ("0:01:30.25", 90.25), ("10:00:00", 36000)]
)
def test_times_are_seconds_minutes_or_hours(text: str, seconds: float) -> None:
    assert parse_time(text, "--from") == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1:2:3:4", "1:", "nan", "1e3"])
def test_what_is_no_time_names_the_option(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"^--to: .*allowed: seconds, M:SS or H:MM:SS"):
        parse_time(text, "--to")


def test_a_span_may_be_open_at_either_end() -> None:
    assert Span().time_range() is None
    assert Span(start="1:00").time_range() == TimeRange(start_s=60.0, end_s=math.inf)
    assert Span(end="5").time_range() == TimeRange(start_s=-math.inf, end_s=5.0)
    with pytest.raises(InvalidRecord):
        Span(start="10", end="5").time_range()


def test_labels_are_name_and_value() -> None:
    assert parse_labels(["room=3", "note=a=b", "empty="]) == {"room": "3", "note": "a=b", "empty": ""}
    for bad in ("room", "=3", " =3"):
        with pytest.raises(InvalidConfig, match="NAME=VALUE"):
            parse_labels([bad])


def test_counts_are_name_and_number() -> None:
    assert parse_counts(["max_questions=8", "max_calls=16"], "--limit") == {"max_questions": 8, "max_calls": 16}
    for bad in ("max_questions", "=8", "max_questions=-1", "max_questions=many", "max_questions="):
        with pytest.raises(InvalidConfig, match=r"--limit: .*NAME=N"):
            parse_counts([bad], "--limit")
