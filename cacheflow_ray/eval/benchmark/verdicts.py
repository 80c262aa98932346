"""Answers into verdicts; a judge's are kept, so that none is asked for twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from cacheflow_ray.eval.benchmark.answers import AnswerLog, AnswerRecord, LineFile
from cacheflow_ray.eval.benchmark.judge import Judge
from cacheflow_ray.eval.benchmark.questions import OpenAnswer, Question
from cacheflow_ray.eval.benchmark.scoring import Verdict, verdict

#: Answers a judge is given at a time.
JUDGED_AT_ONCE = 8

Verdicts = Mapping[tuple[str, str], Verdict]


def all_verdicts(
    questions: Sequence[Question], methods: Sequence[str], log: AnswerLog, *, scorer: str = "judge",
    judged: Verdicts | None = None,
) -> dict[tuple[str, str], Verdict]:  # fmt: skip
    """The verdict on every answer there is, by (question, method); `judged` are a judge's."""
    found: dict[tuple[str, str], Verdict] = {}
    for question, record in _answered(questions, methods, log):
        own = verdict(question.truth, record.text, record.answered_at_s, scorer=scorer)
        found[record.key] = (judged or {}).get(record.key, own)
    return found


def judge_all(
    judge: Judge, questions: Sequence[Question], methods: Sequence[str], log: AnswerLog, out: Path,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> dict[tuple[str, str], Verdict]:  # fmt: skip
    """Ask the judge about every open answer it has not judged yet; each verdict is kept in `out` as it comes.

    Answers whose verdicts could not be read are not among the result, and asked about again the next time.

    Raises:
        JudgeFailed: it cannot be reached or refuses; verdicts so far are kept.
        UsageError: a line of the file is not ours.
    """
    file = LineFile(out / "verdicts.jsonl")
    known = _read(file, judge)
    wanted = [pair for pair in _answered(questions, methods, log) if isinstance(pair[0].truth, OpenAnswer)]
    asked = [(question, record) for question, record in wanted if known.get(record.key, ("",))[0] != record.text]
    found = {record.key: known[record.key][1] for _, record in wanted if record.key in known}
    for _, record in asked:
        found.pop(record.key, None)
    watch(len(wanted) - len(asked), len(wanted))
    for done, (record, said) in enumerate(_judged(judge, asked), start=len(wanted) - len(asked) + 1):
        if said is not None:
            found[record.key] = said
            file.append(_line(judge, record, said))
        watch(done, len(wanted))
    return found


def _answered(
    questions: Sequence[Question], methods: Sequence[str], log: AnswerLog
) -> Iterator[tuple[Question, AnswerRecord]]:
    for question in questions:
        for method in methods:
            record = log.get(question.question_id, method)
            if record is not None:
                yield question, record


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
