"""Answers into verdicts; a judge's are kept, so that none is asked for twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cacheflow_ray.eval.benchmark.answers import AnswerLog, AnswerRecord, LineFile
from cacheflow_ray.eval.benchmark.judge import Judge
from cacheflow_ray.eval.benchmark.questions import OpenAnswer, Question
from cacheflow_ray.eval.benchmark.scoring import Verdict, verdict

#: Answers a judge is given at a time.
JUDGED_AT_ONCE = 8

Verdicts = Mapping[tuple[str, str], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSet:
    """The answers of some methods to some questions, as far as they are made."""

    questions: Sequence[Question]
    methods: Sequence[str]
    log: AnswerLog

    def __iter__(self) -> Iterator[tuple[Question, AnswerRecord]]:
        for question in self.questions:
            for method in self.methods:
                record = self.log.get(question.question_id, method)
                if record is not None:
                    yield question, record


def all_verdicts(
    answers: AnswerSet, *, scorer: str = "judge", judged: Verdicts | None = None
) -> dict[tuple[str, str], Verdict]:
    """The verdict on every answer, by (question, method); `judged` are a judge's."""
    found: dict[tuple[str, str], Verdict] = {}
    for question, record in answers:
        own = verdict(question.truth, record.text, record.answered_at_s, scorer=scorer)
        found[record.key] = (judged or {}).get(record.key, own)
    return found


def judge_all(
    judge: Judge, answers: AnswerSet, out: Path, watch: Callable[[int, int], None] = lambda done, total: None
) -> dict[tuple[str, str], Verdict]:
    """Ask the judge about every open answer it has not judged yet; each verdict is kept in `out` as it comes.

    Answers whose verdicts could not be read are not among the result, and asked about again the next time.

    Raises:
        JudgeFailed: it cannot be reached or refuses; verdicts so far are kept.
        UsageError: a line of the file is not ours.
    """
    file = LineFile(out / "verdicts.jsonl")
    known = _read(file, judge)
    wanted = [(question, record) for question, record in answers if isinstance(question.truth, OpenAnswer)]
    found: dict[tuple[str, str], Verdict] = {}
    asked: list[tuple[Question, AnswerRecord]] = []
    for question, record in wanted:
        text, said = known.get(record.key, (None, None))
        if said is not None and text == record.text:
            found[record.key] = said
        else:
            asked.append((question, record))
    watch(len(found), len(wanted))
    for done, (record, new) in enumerate(_judged(judge, asked), start=len(found) + 1):
        if new is not None:
            found[record.key] = new
            file.append(_line(judge, record, new))
        watch(done, len(wanted))
    return found


def _judged(
    judge: Judge, asked: Sequence[tuple[Question, AnswerRecord]]
) -> Iterator[tuple[AnswerRecord, Verdict | None]]:
    """Verdicts as they come. The first failure ends it; what is under way then is waited for and lost."""

    def ask(question: Question, record: AnswerRecord) -> Verdict | None:
        assert isinstance(question.truth, OpenAnswer)
        return judge.verdict(question.looked_for, question.truth.text, record.text)

    with ThreadPoolExecutor(max_workers=JUDGED_AT_ONCE) as pool:
        futures: dict[Future[Verdict | None], AnswerRecord] = {
            pool.submit(ask, question, record): record for question, record in asked
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _line(judge: Judge, record: AnswerRecord, said: Verdict) -> dict[str, object]:
    return {
        "judge": judge.model,
        "question_id": record.question_id,
        "method": record.method,
        "answer": record.text,
        "correct": said.correct,
        "score": said.score,
    }


def _read(file: LineFile, judge: Judge) -> dict[tuple[str, str], tuple[str, Verdict]]:
    """(answer judged, verdict) by (question, method), of this judge; another's count for nothing."""
    known: dict[tuple[str, str], tuple[str, Verdict]] = {}
    for number, value in file.read():
        try:
            said = Verdict(correct=bool(value["correct"]), score=float(value["score"]))
            if value["judge"] == judge.model:
                known[str(value["question_id"]), str(value["method"])] = str(value["answer"]), said
        except (KeyError, TypeError, ValueError) as error:
            raise file.bad(number) from error
    return known
