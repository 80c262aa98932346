"""StreamingBench: per video its questions, asked when the stream has reached their time stamp.

    [{video_path, time, video_categories, questions: [{task_type, question, time_stamp, answer, options, ...}]}]

Four files, questions_real, _omni, _sqa and _proactive.json, or one with any of their questions. Options come with
letters, without, or torn apart. Sequential questions refer to those before them on the same video, which the prompt
then tells with their answers. Proactive ones have ground_truth_time_stamp and ground_truth_output for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cacheflow_ray.errors import BadAnnotations
from cacheflow_ray.eval.benchmark.prompts import (
    CHOICE_OPENING,
    choice_prompt,
    earlier_turn,
    gate_prompt,
    repaired,
    with_history,
)
from cacheflow_ray.eval.benchmark.questions import LETTERS, Choice, Proactive, Question
from cacheflow_ray.eval.benchmark.records import Record, find_file, find_video, read_records

#: Published file names -> the group their questions are in.
GROUPS = {"real": "real-time", "omni": "omni-source", "sqa": "contextual", "proactive": "contextual"}
STREAMINGBENCH_FILES = ("streamingbench.json", "annotations.json")

_SEQUENTIAL = "Sequential Question Answering"


def load_streamingbench(place: Path) -> Iterator[Question]:
    """All questions of the files there are. Raises BadAnnotations."""
    parts = {group: place / f"questions_{group}.json" for group in GROUPS}
    found = {group: path for group, path in parts.items() if path.is_file()}
    if not found:
        names = (*(path.name for path in parts.values()), *STREAMINGBENCH_FILES)
        found = {"": find_file(place, names, "StreamingBench")}
    for part, path in found.items():
        yield from _questions(place, path, part or _part_of(path))


def _part_of(path: Path) -> str:
    return path.stem.removeprefix("questions_") if path.stem.removeprefix("questions_") in GROUPS else ""


def _questions(place: Path, path: Path, part: str) -> Iterator[Question]:
    history: dict[Path, str] = {}
    number = 0
    for record in read_records(path):
        video = find_video(place, record, "video_path")
        for asked in record.records("questions"):
            question_id = f"{part or path.stem}/{number}"
            number += 1
            if "ground_truth_time_stamp" in asked.fields:
                yield _proactive(asked, question_id, video, GROUPS.get(part, ""))
                continue
            sequential = part == "sqa" or asked.fields.get("task_type") == _SEQUENTIAL
            before = history.get(video, "") if sequential else ""
            yield _choice(asked, question_id, video, before, GROUPS.get(part, ""))
            history[video] = history.get(video, "") + _turn(asked)


def _choice(asked: Record, question_id: str, video: Path, before: str, group: str) -> Question:
    question, options = asked.text("question"), repaired(asked.texts("options"))
    return Question(
        question_id=question_id,
        video=video,
        task=asked.text("task_type"),
        group=group,
        prompt=choice_prompt(question, options, with_history(before)),
        looked_for=question,
        opening=CHOICE_OPENING,
        truth=Choice(index=_letter(asked, len(options)), num_options=len(options)),
        asked_at_s=asked.seconds("time_stamp"),
    )


def _turn(asked: Record) -> str:
    options = repaired(asked.texts("options"))
    return earlier_turn(
        asked.text("time_stamp"), asked.text("question"), options, LETTERS[_letter(asked, len(options))]
    )


def _letter(asked: Record, num_options: int) -> int:
    """The index of `answer`: a letter, alone or with what follows one ("B.", "(B)", "B. A map.")."""
    answer = asked.text("answer")
    found = re.match(r"^\(?([A-J])(?![A-Za-z])", answer)
    index = LETTERS.index(found[1]) if found else num_options
    if index >= num_options:
        raise asked.bad("answer", f"is {answer!r}, which is no letter of its {num_options} options")
    return index


def _proactive(asked: Record, question_id: str, video: Path, group: str) -> Question:
    instruction, output = asked.text("question"), asked.text("ground_truth_output")
    begins_s, due_s = asked.seconds("time_stamp"), asked.seconds("ground_truth_time_stamp")
    if due_s < begins_s:
        raise BadAnnotations(
            f"{asked.where}: 'ground_truth_time_stamp' is before 'time_stamp'",
            where=asked.where,
            field="ground_truth_time_stamp",
        )
    return Question(
        question_id=question_id,
        video=video,
        task=asked.text("task_type"),
        group=group,
        prompt=instruction,
        looked_for=instruction,
        truth=Proactive(output=output, asked_s=begins_s, due_s=due_s, gate=gate_prompt(instruction, output)),
        asked_at_s=begins_s,
    )
