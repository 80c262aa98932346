"""Annotations in the layout of the ReKV family: per video its conversations.

    [{video_id, video_path, duration, conversations: [{question, choices | -, answer, question_type, ...}]}]

QAEgo4D-MC, MLVU and EgoSchema are multiple choice and asked after the whole video; ActivityNet-QA is open and asked so
too; RVS-Ego and RVS-Movie are open and asked when the stream has reached `end_time` (their start_time is unused by the
published code). The files MLVU and EgoSchema themselves publish are read as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cacheflow_ray.errors import BadAnnotations
from cacheflow_ray.eval.benchmark.prompts import CHOICE_OPENING, choice_prompt
from cacheflow_ray.eval.benchmark.questions import Choice, OpenAnswer, Question
from cacheflow_ray.eval.benchmark.records import Record, find_file, find_video, read_records

QAEGO4D_FILES = ("test_mc.json", "qaego4d.json", "annotations.json")
MLVU_FILES = ("dev_debug_mc.json", "dev_mc.json", "mlvu.json", "annotations.json")
EGOSCHEMA_FILES = ("full.json", "subset.json", "egoschema.json", "annotations.json", "questions.json")
ACTIVITYNET_FILES = ("test.json", "activitynet_qa.json", "annotations.json")
RVS_EGO_FILES = ("ego4d_oe.json", "ego/ego4d_oe.json", "rvs_ego.json", "annotations.json")
RVS_MOVIE_FILES = ("movienet_oe.json", "movie/movienet_oe.json", "rvs_movie.json", "annotations.json")

#: MLVU's own folder of one file per task; those without candidates are no multiple choice and left out.
MLVU_FOLDER = "json"
_EGOSCHEMA_OPTIONS = 5


def load_qaego4d(place: Path) -> Iterator[Question]:
    """Multiple choice with the time windows that show the answer."""
    return _choices(place, find_file(place, QAEGO4D_FILES, "QAEgo4D"))


def load_mlvu(place: Path) -> Iterator[Question]:
    """Multiple choice by tasks: one file, or MLVU's own json/1_plotQA.json and so on."""
    folder = place / MLVU_FOLDER
    if folder.is_dir() and not any((place / name).is_file() for name in MLVU_FILES):
        return _mlvu_own(place, sorted(folder.glob("*.json")))
    return _choices(place, find_file(place, MLVU_FILES, "MLVU"))


def load_egoschema(place: Path) -> Iterator[Question]:
    """Multiple choice whose answers may be null: then the benchmark's server knows them, and nobody else."""
    path = find_file(place, EGOSCHEMA_FILES, "EgoSchema")
    if path.name == "questions.json":
        return _egoschema_own(place, path)
    return _choices(place, path, may_lack_answer=True)


def load_activitynet(place: Path) -> Iterator[Question]:
    """Open questions after the whole video."""
    return _open(place, find_file(place, ACTIVITYNET_FILES, "ActivityNet-QA"), streaming=False)


def load_rvs_ego(place: Path) -> Iterator[Question]:
    """Open questions in the midst of the stream."""
    return _open(place, find_file(place, RVS_EGO_FILES, "RVS-Ego"), streaming=True)


def load_rvs_movie(place: Path) -> Iterator[Question]:
    """Open questions in the midst of the stream."""
    return _open(place, find_file(place, RVS_MOVIE_FILES, "RVS-Movie"), streaming=True)


def _choices(place: Path, path: Path, *, may_lack_answer: bool = False) -> Iterator[Question]:
    for video_id, video, asked in _conversations(place, path, may_lack_answer):
        options = asked.texts("choices")
        truth = Choice(index=_right(asked, options, may_lack_answer), num_options=len(options))
        yield Question(
            question_id=video_id,
            video=video,
            task=_task(asked),
            prompt=choice_prompt(asked.text("question"), options),
            looked_for=asked.text("question"),
            opening=CHOICE_OPENING,
            truth=truth,
            windows_s=_windows(asked) if "temporal_windows" in asked.fields else (),
        )


def _open(place: Path, path: Path, *, streaming: bool) -> Iterator[Question]:
    for video_id, video, asked in _conversations(place, path, False):
        question = asked.text("question")
        yield Question(
            question_id=video_id,
            video=video,
            task=_task(asked),
            prompt=question,
            looked_for=question,
            truth=OpenAnswer(text=asked.text("answer")),
            asked_at_s=asked.number("end_time") if streaming else None,
        )


def _conversations(place: Path, path: Path, alone: bool) -> Iterator[tuple[str, Path, Record]]:
    """(question id, video, conversation) in order; the only question of a video is named as the video where `alone`."""
    asked_of: Counter[str] = Counter()
    for record in read_records(path):
        name, video = record.name("video_id"), find_video(place, record, "video_path")
        conversations = record.records("conversations")
        for asked in conversations:
            yield name if alone and len(conversations) == 1 else f"{name}/{asked_of[name]}", video, asked
            asked_of[name] += 1


def _task(asked: Record) -> str:
    """The kind of question; ActivityNet-QA numbers its kinds."""
    return asked.name("question_type") if asked.fields.get("question_type") is not None else ""


def _right(asked: Record, options: list[str], may_lack_answer: bool) -> int | None:
    """The place of the right option: `answer` is its text, or (EgoSchema) its number, or null."""
    answer = asked.get("answer")
    if answer is None and may_lack_answer:
        return None
    if may_lack_answer and isinstance(answer, int):
        return asked.index("answer", len(options))
    text = asked.text("answer")
    if text not in options:
        raise asked.bad("answer", f"is {text!r}, which is none of its choices")
    return options.index(text)


def _windows(asked: Record) -> tuple[tuple[float, float], ...]:
    value = asked.get("temporal_windows")
    numbers = isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, int | float) for end in pair)
        for pair in value
    )
    if not numbers or any(pair[0] > pair[1] for pair in value):
        raise asked.bad("temporal_windows", "is not a list of [start, end] in seconds")
    return tuple((float(start), float(end)) for start, end in value)


def _mlvu_own(place: Path, paths: list[Path]) -> Iterator[Question]:
    """{video, duration, question, candidates, answer, question_type}, flat."""
    for path in paths:
        for number, record in enumerate(read_records(path)):
            if "candidates" not in record.fields:
                continue
            options = record.texts("candidates")
            yield Question(
                question_id=f"{path.stem}/{number}",
                video=find_video(place, record, "video", sample=f"{path.stem}/{record.text('video')}"),
                task=record.text("question_type"),
                prompt=choice_prompt(record.text("question"), options),
                looked_for=record.text("question"),
                opening=CHOICE_OPENING,
                truth=Choice(index=_right(record, options, False), num_options=len(options)),
            )


def _egoschema_own(place: Path, path: Path) -> Iterator[Question]:
    """{q_uid, question, "option 0".."option 4"}, and subset_answers.json {q_uid: index} where it lies beside it."""
    answers = _subset_answers(path.with_name("subset_answers.json"))
    for record in read_records(path):
        q_uid = record.text("q_uid")
        options = [record.text(f"option {number}") for number in range(_EGOSCHEMA_OPTIONS)]
        yield Question(
            question_id=q_uid,
            video=find_video(place, record, "q_uid"),
            task="",
            prompt=choice_prompt(record.text("question"), options),
            looked_for=record.text("question"),
            opening=CHOICE_OPENING,
            truth=Choice(index=answers.get(q_uid), num_options=_EGOSCHEMA_OPTIONS),
        )


def _subset_answers(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    record = _read_one(path)
    return {q_uid: record.index(q_uid, _EGOSCHEMA_OPTIONS) for q_uid in record.fields}


def _read_one(path: Path) -> Record:
    """A file that is one JSON object, as a record. Raises BadAnnotations."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadAnnotations(f"{path}: cannot be read as JSON ({error})", path=str(path)) from error
    if not isinstance(value, dict):
        raise BadAnnotations(f"{path}: is no JSON object", path=str(path))
    return Record(fields=value, where=path.name)
