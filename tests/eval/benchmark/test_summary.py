"""From answers to the numbers of a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.eval.benchmark.answers import AnswerLog, AnswerRecord
from cacheflow_ray.eval.benchmark.questions import Choice, Proactive, Question, Truth
from cacheflow_ray.eval.benchmark.render import tables
from cacheflow_ray.eval.benchmark.report import EvalReport, write_answers
from cacheflow_ray.eval.benchmark.scoring import Verdict
from cacheflow_ray.eval.benchmark.summary import MethodRow, method_row, recall, task_rows
from cacheflow_ray.eval.benchmark.verdicts import AnswerSet, all_verdicts
from cacheflow_ray.published import PUBLISHED

RIGHT, WRONG = "B) yes", "A) no"


def question(
    name: str, *, task: str = "", group: str = "", video: str = "v", truth: Truth | None = None,
    windows_s: tuple[tuple[float, float], ...] = (),
) -> Question:  # fmt: skip
    return Question(
        question_id=name, video=Path(video), task=task, group=group, prompt="?", looked_for="?", windows_s=windows_s,
        truth=truth or Choice(index=1, num_options=4),
    )  # fmt: skip


def answer(
    asked: Question, text: str, *, latency_s: float = 1.0, seen: int = 0, kept: int = 0, gpu: int | None = None,
    evidence: tuple[tuple[float, float], ...] = (), answered_at_s: float | None = None,
) -> AnswerRecord:  # fmt: skip
    return AnswerRecord(
        question_id=asked.question_id, method="m", asked=asked.digest, task=asked.task, asked_at_s=None,
        answered_at_s=answered_at_s, text=text, latency_s=latency_s, context_tokens=0, tokens_seen=seen,
        tokens_kept=kept, gpu_memory_bytes=gpu, evidence=evidence, warnings=(),
    )  # fmt: skip


def row_of(tmp_path: Path, *pairs: tuple[Question, AnswerRecord | None]) -> MethodRow:
    log = AnswerLog.open(tmp_path, {})
    for _, record in pairs:
        if record is not None:
            log.append(record)
    questions = [asked for asked, _ in pairs]
    answers = AnswerSet(questions=questions, methods=["m"], log=log)
    return method_row("m", questions, log, all_verdicts(answers), fps=0.5)


def test_tasks_are_divided_by_their_own_counts(tmp_path: Path) -> None:
    many = [question(f"a{n}", task="many", group="g") for n in range(4)]
    few = question("b", task="few", group="h")
    pairs = [(asked, answer(asked, RIGHT if n < 1 else WRONG)) for n, asked in enumerate(many)]
    row = row_of(tmp_path, *pairs, (few, answer(few, RIGHT)))

    assert row.accuracy == pytest.approx(40.0), "two of five questions"
    assert row.task_mean == pytest.approx(62.5), "a quarter of one task, all of the other"
    assert row.group_means == {"g": pytest.approx(25.0), "h": pytest.approx(100.0)}


def test_a_task_without_answers_counts_for_nothing(tmp_path: Path) -> None:
    first, second = question("a", task="x"), question("b", task="y")
    row = row_of(tmp_path, (first, answer(first, RIGHT)), (second, None))
    assert (row.accuracy, row.task_mean) == (100.0, None) and (row.questions, row.answered, row.scored) == (2, 1, 1)
    tasks = task_rows([first, second], ["m"], {("a", "m"): Verdict(correct=True)})
    assert [(task.task, task.accuracy, task.count) for task in tasks] == [("x", 100.0, 1), ("y", None, 0)]


def test_no_accuracy_is_made_up_where_no_truth_is_given(tmp_path: Path) -> None:
    asked = question("a", truth=Choice(index=None, num_options=4))
    row = row_of(tmp_path, (asked, answer(asked, RIGHT)))
    assert row.accuracy is None and (row.answered, row.scored) == (1, 0)


@pytest.mark.parametrize("step", [1, -1])
def test_drop_counts_each_video_once_as_it_last_stood(step: int, tmp_path: Path) -> None:
    early, late = question("a", video="v"), question("b", video="v")
    other = question("c", video="w")
    pairs = [(late, answer(late, RIGHT, seen=100, kept=20, gpu=3_000_000_000)),
             (early, answer(early, RIGHT, seen=50, kept=50, gpu=5_500_000_000)),
             (other, answer(other, RIGHT, seen=300, kept=30, latency_s=3.0))]  # fmt: skip
    row = row_of(tmp_path, *pairs[::step])
    assert row.drop == pytest.approx(100 * (1 - 50 / 400))
    assert row.latency_s == pytest.approx(5 / 3) and row.gpu_memory_gb == pytest.approx(5.5)


def test_proactive_answers_are_counted_on_time_apart_from_right(tmp_path: Path) -> None:
    truth = Proactive(output="3", asked_s=1, due_s=8, gate="?")
    asked = [question(name, truth=truth) for name in "abc"]
    times = (9.0, 9.0, None)
    pairs = [
        (one, answer(one, text, answered_at_s=at)) for one, text, at in zip(asked, ("3", "4", ""), times, strict=True)
    ]
    row = row_of(tmp_path, *pairs)
    assert row.on_time == pytest.approx(200 / 3) and row.accuracy == pytest.approx(100 / 3)


def test_evidence_recall_is_of_the_windows_time(tmp_path: Path) -> None:
    asked = question("a", windows_s=((4.0, 8.0),))
    row = row_of(tmp_path, (asked, answer(asked, RIGHT, evidence=((0.0, 4.0), (20.0, 30.0)))))
    assert row.evidence_recall == pytest.approx(50.0), "0..4 s and the two seconds its last frame stands for"


SPANS = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=5
)


@given(evidence=SPANS, windows=SPANS, frame_s=st.floats(0, 2))
def test_recall_is_a_share_and_grows_with_evidence(
    evidence: list[tuple[float, float]], windows: list[tuple[float, float]], frame_s: float
) -> None:
    found = recall(evidence, windows, frame_s)
    assert -1e-9 <= found <= 1 + 1e-6
    assert recall([*evidence, (0.0, 5.0)], windows, frame_s) >= found - 1e-9
    if windows:
        assert recall([(0.0, 100.0)], windows, frame_s) == pytest.approx(1.0)


def test_a_table_of_answers_holds_what_was_chosen(tmp_path: Path) -> None:
    asked = [question(name, truth=Choice(index=None, num_options=5)) for name in "abc"]
    log = AnswerLog.open(tmp_path, {})
    for one, text in zip(asked, ("C) x", "who knows"), strict=False):
        log.append(answer(one, text))
    write_answers(tmp_path / "m.csv", "m", asked, log)
    assert (tmp_path / "m.csv").read_text().splitlines() == ["q_uid,answer", "a,2", "b,-1"]


def test_published_rows_are_told_apart_from_measured_ones(tmp_path: Path) -> None:
    row = row_of(tmp_path, (question("a"), answer(question("a"), RIGHT)))
    report = EvalReport(
        benchmark="rvs-ego", title="RVS-Ego", mode="streaming", scorer="exact",
        settings={"model": "mine", "fps": 0.5, "last_frames": 4}, rows=[row], tasks=[], published=PUBLISHED["rvs-ego"],
        unjudged=0, skipped={}, cut_short={}, warnings={}, files={},
    )  # fmt: skip
    (table,) = tables(report)
    sources = [line[list(table.headings).index("source")] for line in table.rows]
    assert sources == ["measured", "published", "published", "published", "published"]
    assert ("CacheFlow", "7B", "published", "61.6", "3.94", "78.5", "2.03", "26.4", "-") in table.rows
    told = report.as_json()
    assert [one["source"] for one in told["published"]] == ["published"] * 4  # type: ignore[index, attr-defined]
