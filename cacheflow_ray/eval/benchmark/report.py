"""A finished run: its rows, the published ones beside them, what was left out, and the files written."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cacheflow_ray.eval.benchmark.answers import AnswerLog
from cacheflow_ray.eval.benchmark.questions import Choice, Question
from cacheflow_ray.eval.benchmark.scoring import read_letter
from cacheflow_ray.eval.benchmark.summary import MethodRow, TaskRow
from cacheflow_ray.eval.benchmark.verdicts import AnswerSet
from cacheflow_ray.published import PublishedRow
from memory_store.records import JsonValue

#: In a table of answers, an answer that names no option.
NO_ANSWER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """Everything one run of a benchmark came to.

    Args:
        benchmark, title, mode, scorer: what was run, and how it was scored.
        settings: what the answers depend on.
        rows: measured here.
        tasks: the same by task.
        published: what papers report.
        unjudged: open answers no judge's reply could be read for.
        skipped, cut_short: videos left out or ended early -> why.
        warnings: of the engine -> how many answers.
        files: what was written, by what it is.
    """

    benchmark: str
    title: str
    mode: str
    scorer: str
    settings: Mapping[str, JsonValue]
    rows: Sequence[MethodRow]
    tasks: Sequence[TaskRow]
    published: Sequence[PublishedRow]
    unjudged: int
    skipped: Mapping[str, str]
    cut_short: Mapping[str, str]
    warnings: Mapping[str, int]
    files: Mapping[str, str]

    def as_json(self) -> dict[str, object]:
        """One JSON object; measured and published rows are told apart by `source`."""
        fields: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        fields["rows"] = [{"source": "measured", **_plain(row)} for row in self.rows]
        fields["tasks"] = [asdict(row) for row in self.tasks]
        fields["published"] = [{"source": "published", **asdict(row)} for row in self.published]
        return fields


def _plain(row: MethodRow) -> dict[str, object]:
    return asdict(row) | {"group_means": dict(row.group_means)}


def warnings_of(answers: AnswerSet) -> dict[str, int]:
    """What the engine had to say, and of how many answers."""
    return dict(Counter(f"{record.method}: {text}" for _, record in answers for text in record.warnings))


def write_answers(path: Path, method: str, questions: Sequence[Question], log: AnswerLog) -> None:
    """A q_uid,answer table of one method's choices, numbered from 0; -1 where an answer names no option."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("q_uid", "answer"))
        for question in questions:
            record = log.get(question.question_id, method)
            if record is not None and isinstance(question.truth, Choice):
                index = read_letter(record.text, question.truth.num_options)
                table.writerow((question.question_id, NO_ANSWER if index is None else index))
