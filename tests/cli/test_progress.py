from __future__ import annotations

from dataclasses import replace

import pytest

from cacheflow_ray.cli.progress import ProgressView, describe, time_left_s
from cacheflow_ray.engine import IngestProgress

START = IngestProgress(
    stream="door",
    frames=100,
    total_frames=400,
    tokens_seen=1600,
    tokens_kept=400,
    blocks=25,
    elapsed_s=2.0,
    position_s=100.0,
    duration_s=400.0,
)
LATER = replace(START, frames=200, tokens_seen=3200, tokens_kept=640, elapsed_s=12.0, position_s=200.0)


def test_speed_and_time_left_count_from_where_this_run_began() -> None:
    assert describe(START, LATER) == "3:20 of 6:40 · 10.0 frames/s · 20 % of tokens kept · 0:20 left"


def test_without_a_duration_the_frames_tell_what_is_left() -> None:
    start, later = replace(START, duration_s=None), replace(LATER, duration_s=None)
    assert time_left_s(start, later) == 20.0
    assert describe(start, later) == "3:20 · 10.0 frames/s · 20 % of tokens kept · 0:20 left"


def test_without_any_length_nothing_is_foretold() -> None:
    start, later = (replace(now, duration_s=None, total_frames=None) for now in (START, LATER))
    assert time_left_s(start, later) is None


def test_the_first_report_makes_no_claim_of_speed() -> None:
    assert describe(START, START) == "1:40 of 6:40 · 25 % of tokens kept"


def test_off_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(line_interval_s=0.0) as view:
        view(START)
        view(LATER)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [f"door: {describe(START, START)}", f"door: {describe(START, LATER)}"]
