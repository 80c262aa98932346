from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cacheflow_ray.cli.output import Output, clock, size, to_json
from cacheflow_ray.config import AskOptions
from cacheflow_ray.types import TimeRange


@dataclass(frozen=True)
class Report:
    name: str
    seen: int
    kept: int

    @property
    def keep_rate(self) -> float:
        return self.kept / self.seen


def test_results_become_json_values() -> None:
    value = {
        "report": Report("a", 4, 1),
        "options": AskOptions(time_range=TimeRange(start_s=1.0)),
        "numpy": (np.int64(3), np.float32(0.5), np.True_),
        "odd": [math.nan, Path("x"), range(2)],
    }

    found = json.loads(json.dumps(to_json(value), allow_nan=False))

    assert found["report"] == {"name": "a", "seen": 4, "kept": 1, "keep_rate": 0.25}
    assert found["options"]["time_range"] == {"start_s": 1.0, "end_s": None}
    assert found["numpy"] == [3, 0.5, True]
    assert found["odd"] == [None, "x", [0, 1]]


def test_with_json_stdout_holds_the_object_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.say("text")
    output.piece("piece")
    output.table({"a": "left"}, [("1",)])
    output.note("note")
    output.result({"a": 1})
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"a": 1}
    assert printed.err == "note\n"


def test_without_json_stdout_holds_the_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.piece("pie")
    output.piece("ce\n")
    output.say("[bold]not markup[/bold]")
    output.table({"name": "left"}, [("x" * 300,)])
    output.result({"a": 1})
    assert capsys.readouterr().out.split("\n")[:2] == ["piece", "[bold]not markup[/bold]"]


def test_a_long_name_in_a_table_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table({"name": "left", "n": "right"}, [("x" * 128, "1")])
    assert "x" * 128 in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "whole", "tenths"),
    [(0, "0:00", "0:00.0"), (59.96, "1:00", "1:00.0"), (754.5, "12:34", "12:34.5"), (3723.04, "1:02:03", "1:02:03.0")],
)
def test_clock(seconds: float, whole: str, tenths: str) -> None:
    assert (clock(seconds), clock(seconds, tenths=True), clock(None)) == (whole, tenths, "-")


@pytest.mark.parametrize(("num", "text"), [(0, "0 B"), (999, "999 B"), (3_400_000, "3.4 MB"), (2.5e15, "2500.0 TB")])
def test_size(num: float, text: str) -> None:
    assert size(num) == text
