"""Annotation files of the published formats, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray.errors import BadAnnotations, UsageError
from cacheflow_ray.eval.benchmark import BENCHMARKS, load_questions
from cacheflow_ray.eval.benchmark.questions import Choice, Count, OpenAnswer, Proactive, Question, YesNo
from tests.eval.benchmark.datasets import (
    by_video,
    choice,
    of_streamingbench,
    open_question,
    ovo_choice,
    ovo_forward,
    proactive,
    streaming,
    touch,
    write_json,
)


def loaded(name: str, place: Path, file: str, *records: Any, videos: tuple[str, ...] = ("v.mp4",)) -> list[Question]:
    write_json(place / file, list(records))
    for video in videos:
        touch(place / video)
    return load_questions(name, place)


def test_a_choice_is_right_by_the_text_of_its_answer(tmp_path: Path) -> None:
    first, second = loaded(
        "qaego4d", tmp_path, "test_mc.json", by_video("data/qaego4d/videos/v.mp4", choice(), choice(answer="nothing")),
        videos=("videos/v.mp4",),
    )  # fmt: skip
    assert (first.truth, second.truth) == (Choice(index=1, num_options=3), Choice(index=2, num_options=3))
    assert first.video == tmp_path / "videos" / "v.mp4" and first.windows_s == ((4.0, 6.5),)
    assert (first.question_id, second.question_id) == ("v1/0", "v1/1")
    assert first.prompt == (
        "Question: What moves?\nOptions:\n(A) a cat\n(B) a patch\n(C) nothing\nOnly give the best option."
    )
    assert first.opening == "Best option: (" and first.looked_for == "What moves?"
    assert first.moments_s("offline") == (float("inf"),) and first.task == "needle"


def test_mlvu_is_read_as_one_file_or_as_its_own_folder(tmp_path: Path) -> None:
    (one,) = loaded("mlvu", tmp_path / "one", "dev_debug_mc.json", by_video("v.mp4", choice(question_type="count")))
    own = tmp_path / "own"
    asked = {"duration": 20, "question": "Who?", "question_type": "plotQA", "answer": "b", "candidates": ["a", "b"]}
    write_json(own / "json" / "1_plotQA.json", [{"video": "x.mp4", **asked}])
    write_json(own / "json" / "9_summary.json", [{"video": "y.mp4", "question": "Sum up", "answer": "..."}])
    touch(own / "video" / "1_plotQA" / "x.mp4")

    (two,) = load_questions("mlvu", own)
    assert one.task == "count" and two.task == "plotQA"
    assert two.truth == Choice(index=1, num_options=2) and two.video == own / "video" / "1_plotQA" / "x.mp4"


@pytest.mark.parametrize(("answer", "index"), [(None, None), (2, 2), ("a cat", 0)])
def test_egoschema_answers_may_be_kept_by_its_server(answer: object, index: int | None, tmp_path: Path) -> None:
    (asked,) = loaded("egoschema", tmp_path, "full.json", by_video("v.mp4", choice(answer=answer), video_id="q-1"))
    assert asked.truth == Choice(index=index, num_options=3) and asked.question_id == "q-1"


def test_egoschema_is_read_as_it_is_published(tmp_path: Path) -> None:
    options = {f"option {number}": f"text {number}" for number in range(5)}
    write_json(tmp_path / "questions.json", [{"q_uid": uid, "question": "Why?", **options} for uid in ("a", "b")])
    write_json(tmp_path / "subset_answers.json", {"b": 3})
    touch(tmp_path / "videos" / "a.mp4"), touch(tmp_path / "videos" / "b.mp4")

    kept, told = load_questions("egoschema", tmp_path)
    assert (kept.truth, told.truth) == (Choice(index=None, num_options=5), Choice(index=3, num_options=5))


def test_open_questions_have_a_time_only_where_the_stream_has(tmp_path: Path) -> None:
    (offline,) = loaded("activitynet-qa", tmp_path / "a", "test.json", by_video("v.mp4", open_question()))
    timed = open_question(start_time=1.0, end_time=6.0)
    (online,) = loaded("rvs-ego", tmp_path / "b", "ego4d_oe.json", by_video("v.mp4", timed))

    assert offline.truth == OpenAnswer(text="a coloured patch") and offline.asked_at_s is None and offline.task == "3"
    assert online.moments_s("streaming") == (6.0,) and online.prompt == "What moves?" and online.opening == ""
    assert online.moments_s("offline") == (float("inf"),)


def test_ovo_is_right_by_gt_whatever_its_answer_says(tmp_path: Path) -> None:
    records = (ovo_choice(), ovo_choice(id=8, answer="left", gt=2, task="OCR"))
    videos = ("src_videos/Ego4D/clips/x.mp4",)
    first, second = loaded("ovo-bench", tmp_path, "ovo_bench_new.json", *records, videos=videos)
    assert (first.truth, second.truth) == (Choice(index=1, num_options=3), Choice(index=2, num_options=3))
    assert (first.group, second.group) == ("backward", "realtime") and first.moments_s("streaming") == (8.0,)


def test_ovo_forward_tasks_ask_once_for_each_test(tmp_path: Path) -> None:
    found = loaded(
        "ovo-bench", tmp_path, "ovo_bench_new.json",
        ovo_forward("REC", {"realtime": 3, "count": 1}, {"realtime": 5.5, "count": 2}, activity="jump"),
        ovo_forward("SSR", {"realtime": 4, "step": "stir it", "type": 0}, id=10),
        ovo_forward("CRR", {"realtime": 6, "type": 1}, id=11, question="Who won?", answer="she"),
        videos=("y.mp4",),
    )  # fmt: skip
    assert [asked.truth for asked in found] == [Count(number=1), Count(number=2), YesNo(holds=False), YesNo(holds=True)]
    assert [asked.asked_at_s for asked in found] == [3.0, 5.5, 4.0, 6.0]
    assert [asked.question_id for asked in found] == ["9/0", "9/1", "10/0", "11/0"]
    assert "did they jump?" in found[0].prompt and "stir it" in found[2].prompt and "Who won?" in found[3].prompt


@pytest.mark.parametrize(
    "options",
    [
        ["A. one", "B. two", "C. three", "D. four"],
        ["A) one", "B) two", "C) three", "D) four"],
        ["(A) one", "(B) two", "(C) three", "(D) four"],
        ["one", "two", "three", "four"],
        ["A.one", "two", "three", "B. four"],
        ["A. one", "B. two", "C. three", "D.", "four"],
        ["A. one", "B. two", "C. three", "D. four", "B. second copy", "C. three"],
    ],
)
def test_streamingbench_options_lose_their_letters(options: list[str], tmp_path: Path) -> None:
    (asked,) = loaded("streamingbench", tmp_path, "questions_real.json", of_streamingbench(streaming(options=options)),
                      videos=("videos/s1.mp4",))  # fmt: skip
    torn = "D. four" if options[3] == "D." else "four"
    assert f"(A) one\n(B) two\n(C) three\n(D) {torn}\n" in asked.prompt and asked.group == "real-time"


@pytest.mark.parametrize("answer", ["B", "B.", "(B)", "B. A map."])
@pytest.mark.parametrize(("stamp", "seconds"), [("00:01:06", 66.0), ("01:06", 66.0), ("01:00:00", 3600.0)])
def test_streamingbench_answers_are_letters_and_times_clocks(
    answer: str, stamp: str, seconds: float, tmp_path: Path
) -> None:
    record = of_streamingbench(streaming(answer=answer, time_stamp=stamp))
    (asked,) = loaded("streamingbench", tmp_path, "questions_omni.json", record, videos=("videos/s1.mp4",))
    assert asked.truth == Choice(index=1, num_options=4) and asked.moments_s("streaming") == (seconds,)


def test_sequential_questions_are_told_what_went_before(tmp_path: Path) -> None:
    records = [[of_streamingbench(streaming(question="First?"))], [of_streamingbench(streaming(question="Second?"))]]
    first, second = loaded("streamingbench", tmp_path, "questions_sqa.json", *records, videos=("videos/s1.mp4",))
    assert "First?" not in second.looked_for and "before" not in first.prompt
    assert second.prompt.index("First?") < second.prompt.index("The answer was B") < second.prompt.index("Second?")


def test_a_proactive_question_is_asked_until_four_seconds_after_its_moment(tmp_path: Path) -> None:
    (asked,) = loaded("streamingbench", tmp_path, "questions_proactive.json", of_streamingbench(proactive()),
                      videos=("videos/s1.mp4",))  # fmt: skip
    assert isinstance(asked.truth, Proactive) and asked.truth.output == "3"
    assert asked.moments_s("streaming") == tuple(float(second) for second in range(5, 13))
    assert 'right time to output "3"' in asked.truth.gate


def test_streamingbench_is_read_from_all_its_files(tmp_path: Path) -> None:
    for part in ("real", "omni"):
        write_json(tmp_path / f"questions_{part}.json", [of_streamingbench(streaming())])
    touch(tmp_path / "videos" / "s1.mp4")
    found = load_questions("streamingbench", tmp_path)
    assert [asked.question_id for asked in found] == ["real/0", "omni/0"]
    assert load_questions("streamingbench", tmp_path / "questions_omni.json")[0].group == "omni-source"


def test_a_limit_takes_the_first_and_looks_at_no_more(tmp_path: Path) -> None:
    write_json(tmp_path / "test_mc.json", [by_video("v.mp4", choice(), choice()), {"video_id": "broken"}])
    touch(tmp_path / "v.mp4")
    assert len(load_questions("qaego4d", tmp_path, limit=2)) == 2
    with pytest.raises(BadAnnotations):
        load_questions("qaego4d", tmp_path, limit=3)


def without(field: str, record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != field}


Broken = tuple[str, str, Any, str, str]

BAD: list[Broken] = [
    ("qaego4d", "test_mc.json", by_video("v.mp4", without("question", choice())), "question", "missing"),
    ("qaego4d", "test_mc.json", by_video("v.mp4", choice(answer="a dog")), "answer", "none of its choices"),
    ("qaego4d", "test_mc.json", by_video("v.mp4", choice(answer=None)), "answer", "null"),
    ("qaego4d", "test_mc.json", by_video("v.mp4", choice(choices="abc")), "choices", "list"),
    ("qaego4d", "test_mc.json", by_video("v.mp4", choice(temporal_windows=[[6, 4]])), "temporal_windows", "seconds"),
    ("qaego4d", "test_mc.json", by_video("gone.mp4", choice()), "video_path", "gone.mp4"),
    ("qaego4d", "test_mc.json", by_video("v.mp4"), "conversations", "[]"),
    ("mlvu", "mlvu.json", "a text", "record 0", "object"),
    ("egoschema", "full.json", by_video("v.mp4", choice(answer=3)), "answer", "from 0 to 2"),
    ("activitynet-qa", "test.json", by_video("v.mp4", open_question(answer=" ")), "answer", "words"),
    ("rvs-ego", "ego4d_oe.json", by_video("v.mp4", open_question()), "end_time", "missing"),
    ("rvs-movie", "movienet_oe.json", by_video("v.mp4", open_question(end_time="soon")), "end_time", "number"),
    ("ovo-bench", "ovo_bench_new.json", ovo_choice(video="v.mp4", gt=3), "gt", "from 0 to 2"),
    ("ovo-bench", "ovo_bench_new.json", ovo_choice(video="v.mp4", task="XYZ"), "task", "EPM"),
    ("ovo-bench", "ovo_bench_new.json", ovo_forward("SSR", {"realtime": 1, "step": "s", "type": 2}, video="v.mp4"),
     "type", "test_info[0]"),
    ("ovo-bench", "ovo_bench_new.json", ovo_forward("REC", {"realtime": 1}, video="v.mp4", activity="a"), "count", "m"),
    ("streamingbench", "questions_real.json", of_streamingbench(streaming(answer="F"), video="v.mp4"),
     "answer", "4 op"),
    ("streamingbench", "questions_real.json", of_streamingbench(streaming(time_stamp="6 s"), video="v.mp4"),
     "time_stamp", "HH:MM:SS"),
    ("streamingbench", "questions_proactive.json",
     of_streamingbench(proactive(ground_truth_time_stamp="00:00:01"), video="v.mp4"), "time_stamp", "before"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "record", "field", "told"), BAD)
def test_a_bad_record_is_named_with_its_field(
    name: str, file: str, record: Any, field: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(BadAnnotations) as error:
        loaded(name, tmp_path, file, record)
    assert file in str(error.value) and "record 0" in str(error.value)
    assert field in str(error.value) and told in str(error.value)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadAnnotations, match=BENCHMARKS[name].files[0]):
        load_questions(name, tmp_path)
    with pytest.raises(BadAnnotations, match="no such folder"):
        load_questions(name, tmp_path / "nowhere")


@pytest.mark.parametrize(("text", "told"), [("{", "JSON"), ("{}", "list of records"), ("[]", "list of records")])
def test_a_file_that_holds_no_records_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "test_mc.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadAnnotations, match=told):
        load_questions("qaego4d", tmp_path)


def test_an_unknown_benchmark_and_doubled_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ovo-bench"):
        load_questions("imagenet", tmp_path)
    with pytest.raises(BadAnnotations, match="'7'"):
        loaded("ovo-bench", tmp_path, "ovo_bench.json", ovo_choice(video="v.mp4"), ovo_choice(video="v.mp4"))


def test_every_published_layout_of_the_videos_is_found(tmp_path: Path) -> None:
    layouts: list[Callable[[Path], Path]] = [
        lambda place: place / "v.mp4",
        lambda place: place / "videos" / "v.mp4",
        lambda place: place / "deep" / "er" / "v.mp4",
    ]
    for number, layout in enumerate(layouts):
        place = tmp_path / str(number)
        video = touch(layout(place))
        write_json(place / "annotations.json", [by_video("some/deep/er/v.mp4", choice())])
        assert load_questions("qaego4d", place)[0].video == video
