"""Answers on disk: cut off, changed, or not ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray.errors import SettingsMismatch, UsageError
from cacheflow_ray.eval.benchmark.answers import AnswerLog, AnswerRecord

SETTINGS: dict[str, Any] = {"tau": 0.5, "model": "m", "window_blocks": 76}

RECORD = AnswerRecord(
    question_id="v/0", method="blind", asked="abc", task="t", asked_at_s=3.5, answered_at_s=None, text="Ä \n(B)",
    latency_s=0.25, context_tokens=7, tokens_seen=10, tokens_kept=4, gpu_memory_bytes=None, evidence=((0.0, 2.0),),
    warnings=("w",),
)  # fmt: skip


def test_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    AnswerLog.open(tmp_path / "new" / "out", SETTINGS).append(RECORD)
    log = AnswerLog.open(tmp_path / "new" / "out", SETTINGS)
    assert log.get("v/0", "blind") == RECORD and ("v/0", "blind") in log
    assert log.get("v/0", "last") is None and ("v/0", "last") not in log


@pytest.mark.parametrize("cut", [1, 20])
def test_an_answer_cut_off_in_the_middle_is_made_again(cut: int, tmp_path: Path) -> None:
    log = AnswerLog.open(tmp_path, SETTINGS)
    second = replace(RECORD, question_id="v/1")
    log.append(RECORD), log.append(second)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])

    again = AnswerLog.open(tmp_path, SETTINGS)
    assert ("v/0", "blind") in again and ("v/1", "blind") not in again
    again.append(second)
    assert ("v/1", "blind") in AnswerLog.open(tmp_path, SETTINGS)


@pytest.mark.parametrize("line", ["oops", '{"question_id": "v/0"}', "[]", '{"evidence": 3}'])
def test_a_line_that_is_no_answer_is_named(line: str, tmp_path: Path) -> None:
    AnswerLog.open(tmp_path, SETTINGS).append(RECORD)
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UsageError, match=r"answers\.jsonl, line 2 "):
        AnswerLog.open(tmp_path, SETTINGS)


def test_changed_settings_are_refused_by_name(tmp_path: Path) -> None:
    AnswerLog.open(tmp_path, SETTINGS)
    with pytest.raises(SettingsMismatch, match=r"tau was 0\.5, not 0\.75, model was 'm', not 'n'") as error:
        AnswerLog.open(tmp_path, SETTINGS | {"tau": 0.75, "model": "n"})
    assert "another --out" in str(error.value) and "window_blocks" not in str(error.value)
    with pytest.raises(SettingsMismatch, match="top_k was None, not 64"):
        AnswerLog.open(tmp_path, SETTINGS | {"top_k": 64})
    assert json.loads((tmp_path / "settings.json").read_text()) == SETTINGS
    AnswerLog.open(tmp_path, SETTINGS)


def test_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("[1]")
    with pytest.raises(UsageError, match=r"settings\.json"):
        AnswerLog.open(tmp_path, SETTINGS)


def test_a_question_that_changed_since_its_answer_is_refused(tmp_path: Path) -> None:
    log = AnswerLog.open(tmp_path, SETTINGS)
    log.check("v/0", "anything")
    log.append(RECORD)
    log.check("v/0", "abc")
    for one in (log, AnswerLog.open(tmp_path, SETTINGS)):
        with pytest.raises(SettingsMismatch, match="'v/0' has changed"):
            one.check("v/0", "abd")
