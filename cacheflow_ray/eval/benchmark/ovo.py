"""OVO-Bench: 1,640 records in one flat list, each asked when the stream has reached its `realtime`.

backward, realtime   {id, task, video, realtime, question, options, answer, gt}: options[gt] is right; `answer` is
                     often a paraphrase of it, differs from it in 420 of 1,468 records, and is never looked at
forward              {id, task, video, test_info: [{realtime, ...}]}, one question for each entry of test_info:
                     REC {activity} counts up to {count}, SSR is {step} being done: {type} 1 or 0, CRR {question}
                     can be answered by now: {type} 1 or 0
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cacheflow_ray.eval.benchmark.prompts import (
    CHOICE_OPENING,
    choice_prompt,
    clue_prompt,
    repetition_prompt,
    step_prompt,
)
from cacheflow_ray.eval.benchmark.questions import LETTERS, Choice, Count, Question, Truth, YesNo
from cacheflow_ray.eval.benchmark.records import Record, find_file, find_video, read_records

OVO_FILES = ("ovo_bench_new.json", "ovo_bench.json", "data/ovo_bench_new.json", "annotations.json")

#: task -> group.
GROUPS = {task: "backward" for task in ("EPM", "ASI", "HLD")}
GROUPS |= {task: "realtime" for task in ("OCR", "ACR", "ATR", "STU", "FPD", "OJR")}
GROUPS |= {task: "forward" for task in ("REC", "SSR", "CRR")}


def load_ovo(place: Path) -> Iterator[Question]:
    """All questions, in order. Raises BadAnnotations."""
    for record in read_records(find_file(place, OVO_FILES, "OVO-Bench")):
        task = record.text("task")
        if task not in GROUPS:
            raise record.bad("task", f"is {task!r}, where one of {', '.join(GROUPS)} is needed")
        video = find_video(place, record, "video")
        yield from _forward(record, task, video) if GROUPS[task] == "forward" else [_choice(record, task, video)]


def _choice(record: Record, task: str, video: Path) -> Question:
    options = record.texts("options")
    if len(options) > len(LETTERS):
        raise record.bad("options", f"are {len(options)}, more than there are letters for")
    return Question(
        question_id=record.name("id"),
        video=video,
        task=task,
        group=GROUPS[task],
        prompt=choice_prompt(record.text("question"), options),
        looked_for=record.text("question"),
        opening=CHOICE_OPENING,
        truth=Choice(index=record.index("gt", len(options)), num_options=len(options)),
        asked_at_s=record.number("realtime"),
    )


def _forward(record: Record, task: str, video: Path) -> Iterator[Question]:
    for number, test in enumerate(record.records("test_info")):
        prompt, looked_for, truth = _FORWARD[task](record, test)
        yield Question(
            question_id=f"{record.name('id')}/{number}",
            video=video,
            task=task,
            group=GROUPS[task],
            prompt=prompt,
            looked_for=looked_for,
            truth=truth,
            asked_at_s=test.number("realtime"),
        )


def _repetition(record: Record, test: Record) -> tuple[str, str, Truth]:
    activity = record.text("activity")
    return repetition_prompt(activity), activity, Count(number=int(test.number("count")))


def _step(record: Record, test: Record) -> tuple[str, str, Truth]:
    step = test.text("step")
    return step_prompt(step), step, YesNo(holds=test.index("type", 2) == 1)


def _clue(record: Record, test: Record) -> tuple[str, str, Truth]:
    question = record.text("question")
    return clue_prompt(question), question, YesNo(holds=test.index("type", 2) == 1)


_FORWARD = {"REC": _repetition, "SSR": _step, "CRR": _clue}
