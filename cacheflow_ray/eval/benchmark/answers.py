"""The answers of a run on disk: one JSON line each, as they are made, beside the settings they were made under.

OUT/settings.json    what the answers depend on; another run may only go on under the same
OUT/answers.jsonl    one line per question and method
OUT/verdicts.jsonl   what a judge said of them
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cacheflow_ray.errors import SettingsMismatch, UsageError
from memory_store.records import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """One answer.

    Args:
        asked: digest of the question as it was asked.
        asked_at_s: seconds of video when it was asked; None: after the end.
        answered_at_s: when a proactive answer came; None: never, or no such question.
        text: as the model gave it.
        latency_s: from the question to the answer's end.
        context_tokens: video and prefix tokens attended to.
        tokens_seen, tokens_kept: of the stream so far, before and after dropping; 0 where nothing was dropped.
        gpu_memory_bytes: peak while the video was watched and the question answered; None without a GPU.
        evidence: (start, end) in seconds of what was attended to.
        warnings: what the engine had to say.
    """

    question_id: str
    method: str
    asked: str
    task: str
    asked_at_s: float | None
    answered_at_s: float | None
    text: str
    latency_s: float
    context_tokens: int
    tokens_seen: int
    tokens_kept: int
    gpu_memory_bytes: int | None
    evidence: tuple[tuple[float, float], ...]
    warnings: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """(question_id, method), once in a run."""
        return self.question_id, self.method

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> AnswerRecord:
        """Of a line's object. Raises KeyError, TypeError or ValueError for another."""
        given = {field.name: value[field.name] for field in fields(cls)}
        given["evidence"] = tuple((float(start), float(end)) for start, end in given["evidence"])
        given["warnings"] = tuple(given["warnings"])
        return cls(**given)


class LineFile:
    """A file of JSON lines that survives being cut off in the middle of the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Iterator[tuple[int, Any]]:
        """(line number, object) of every whole line; a last line without its end is cut off the file.

        Raises:
            UsageError: a line that is no JSON.
        """
        if not self._path.exists():
            return
        raw = self._path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise self.bad(number) from error

    def append(self, value: Mapping[str, Any]) -> None:
        """Add one line; it is with the operating system when this returns."""
        with self._path.open("ab") as file:
            file.write(json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def bad(self, number: int) -> UsageError:
        """The error of a line that cannot be used."""
        return UsageError(
            f"{self._path}, line {number} was not written by this command: mend or delete it, or choose another --out",
            path=str(self._path),
        )


class AnswerLog:
    """All answers of one folder; made by `open`."""

    def __init__(self, file: LineFile, records: Mapping[tuple[str, str], AnswerRecord]) -> None:
        self._file, self._records = file, dict(records)
        self._asked = {record.question_id: record.asked for record in records.values()}

    @classmethod
    def open(cls, out: Path, settings: Mapping[str, JsonValue]) -> AnswerLog:
        """Go on with the answers of a folder, or begin it.

        Raises:
            SettingsMismatch: they were made under other settings; the message names those that differ.
            UsageError: a line of it is not ours.
        """
        out.mkdir(parents=True, exist_ok=True)
        _check_settings(out, settings)
        file = LineFile(out / "answers.jsonl")
        records: dict[tuple[str, str], AnswerRecord] = {}
        for number, value in file.read():
            try:
                record = AnswerRecord.of(value)
            except (KeyError, TypeError, ValueError) as error:
                raise file.bad(number) from error
            records[record.key] = record
        return cls(file, records)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._records

    def check(self, question_id: str, digest: str) -> None:
        """Refuse a question that has changed since it was answered.

        Raises:
            SettingsMismatch: naming it.
        """
        if self._asked.get(question_id, digest) != digest:
            raise SettingsMismatch(
                f"question {question_id!r} has changed since it was answered (another version of the annotations?): "
                "choose another --out",
                question=question_id,
            )

    def get(self, question_id: str, method: str) -> AnswerRecord | None:
        """An answer; None where it is not made yet."""
        return self._records.get((question_id, method))

    def append(self, record: AnswerRecord) -> None:
        """Keep an answer."""
        self._file.append(asdict(record))
        self._records[record.key], self._asked[record.question_id] = record, record.asked


def _check_settings(out: Path, settings: Mapping[str, JsonValue]) -> None:
    path = out / "settings.json"
    if not path.exists():
        path.write_text(json.dumps(dict(settings), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        differs = [name for name in {**stored, **settings} if stored.get(name) != settings.get(name)]
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read ({error}): choose another --out", path=str(path)) from error
    if differs:
        told = ", ".join(f"{name} was {stored.get(name)!r}, not {settings.get(name)!r}" for name in differs)
        raise SettingsMismatch(
            f"the answers in {str(out)!r} were made with other settings ({told}): give the same, or another --out",
            settings=tuple(differs),
        )
