"""Whole runs on real video and a toy model: what is seen when, what is kept, what is asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine.answerer import Answerer
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.errors import SettingsMismatch
from cacheflow_ray.eval.benchmark import METHODS, methods
from cacheflow_ray.eval.benchmark.answers import AnswerLog, AnswerRecord
from cacheflow_ray.eval.benchmark.catalogue import load_questions
from cacheflow_ray.eval.benchmark.methods import BLIND, CACHEFLOW, LAST, MethodOptions, Session, Words
from cacheflow_ray.eval.benchmark.questions import Mode, Question
from cacheflow_ray.eval.benchmark.run import Plan, answer_all
from cacheflow_ray.eval.benchmark.videos import WatchedVideo, array_frames
from cacheflow_ray.models import VideoModel
from memory_store import Store
from tests.eval.benchmark.datasets import (
    by_video,
    choice,
    film,
    movie_array,
    of_streamingbench,
    open_question,
    proactive,
    touch,
    write_json,
)
from tests.oracles import toy_model

OPTIONS = MethodOptions(
    settings=StreamSettings(fps=1.0, tau=0.98, window_blocks=2), ask=AskOptions(top_k=3), last_frames=4
)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return toy_model("tiny-llava-onevision")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RVS-Ego with questions out of order, QAEgo4D and proactive questions about the same videos of 20 s."""
    place = tmp_path_factory.mktemp("data")
    film(place / "videos" / "v.mp4")
    film(place / "videos" / "w.mp4", seed=1)
    times = (12.0, 5.0, 0.0)
    asked = [open_question(question=f"What moves at {end}?", start_time=0.0, end_time=end) for end in times]
    other = by_video("videos/w.mp4", open_question(start_time=0, end_time=9.0), video_id="v2")
    write_json(place / "ego4d_oe.json", [by_video("videos/v.mp4", *asked), other])
    write_json(place / "test_mc.json", [by_video("videos/v.mp4", choice(), choice(question="And then?"))])
    write_json(place / "questions_proactive.json", [of_streamingbench(proactive(), video="videos/v.mp4")])
    return place


@pytest.fixture
def backend(model: VideoModel, tmp_path: Path) -> Iterator[Backend]:
    with Store.open(tmp_path / "store") as store:
        yield Backend(model=model, store=store)


def plan_of(questions: list[Question], mode: Mode, *names: str) -> Plan:
    return Plan(questions=questions, methods=names or tuple(METHODS), mode=mode, options=OPTIONS, open_tokens=4)


def answers(backend: Backend, plan: Plan, log: AnswerLog) -> dict[tuple[str, str], AnswerRecord]:
    answer_all(backend, plan, log)
    found = [log.get(asked.question_id, method) for asked in plan.questions for method in plan.methods]
    return {record.key: record for record in found if record is not None}


def test_a_stream_is_asked_when_it_has_reached_the_question_and_not_later(
    backend: Backend, data: Path, tmp_path: Path, model: VideoModel
) -> None:
    questions = load_questions("rvs-ego", data)
    found = answers(backend, plan_of(questions, "streaming"), AnswerLog.open(tmp_path, {}))
    patches = model.default_block_size
    seen = {asked.question_id: found[asked.question_id, CACHEFLOW].tokens_seen / patches for asked in questions}

    assert seen == {"v1/0": 13, "v1/1": 6, "v1/2": 1, "v2/0": 10}, "frames 0 s, 1 s .. up to the question's second"
    for asked in questions:
        record = found[asked.question_id, CACHEFLOW]
        assert record.evidence == () or max(end for _, end in record.evidence) <= (asked.asked_at_s or 0)
        assert record.asked_at_s == asked.asked_at_s and 0 < record.tokens_kept <= record.tokens_seen
        assert found[asked.question_id, BLIND].context_tokens == model.prefix.length
        latest = min(4, seen[asked.question_id]) * patches
        assert found[asked.question_id, LAST].context_tokens == model.prefix.length + latest
    assert any(found[asked.question_id, CACHEFLOW].evidence for asked in questions)
    assert backend.store.list_streams() == [], "what has been asked about is forgotten"


def test_a_streaming_answer_is_that_of_a_video_which_ends_there(backend: Backend, data: Path, tmp_path: Path) -> None:
    (asked,) = [one for one in load_questions("rvs-ego", data) if one.asked_at_s == 5.0]
    streamed = answers(backend, plan_of([asked], "streaming"), AnswerLog.open(tmp_path / "a", {}))
    film(tmp_path / "cut.mp4", seconds=5.5)
    whole = write_json(
        tmp_path / "ego4d_oe.json", [by_video("cut.mp4", open_question(question=asked.prompt, end_time=5))]
    )
    (cut,) = load_questions("rvs-ego", whole)
    offline = answers(backend, plan_of([cut], "offline"), AnswerLog.open(tmp_path / "b", {}))

    for method in METHODS:
        left, right = streamed[asked.question_id, method], offline[cut.question_id, method]
        assert (left.text, left.context_tokens, left.evidence) == (right.text, right.context_tokens, right.evidence)
    assert offline[cut.question_id, CACHEFLOW].asked_at_s is None


def test_offline_the_whole_video_is_seen_by_every_question(
    backend: Backend, data: Path, tmp_path: Path, model: VideoModel
) -> None:
    found = answers(backend, plan_of(load_questions("qaego4d", data), "offline"), AnswerLog.open(tmp_path, {}))
    assert {found[f"v1/{n}", CACHEFLOW].tokens_seen for n in (0, 1)} == {20 * model.default_block_size}


def test_a_choice_is_asked_with_its_options_and_looked_up_without(
    backend: Backend, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_with: list[Words] = []

    def spy(session: Session, words: Words) -> object:
        asked_with.append(words)
        return methods.ask_blind(session, words)

    monkeypatch.setitem(METHODS, BLIND, spy)  # type: ignore[arg-type]
    answers(backend, plan_of(load_questions("qaego4d", data, 1), "offline", BLIND), AnswerLog.open(tmp_path, {}))
    (words,) = asked_with
    assert words.prompt.endswith("Only give the best option.") and words.wording.opening == "Best option: ("
    assert words.wording.looked_for == "What moves?"


def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(backend: Backend, data: Path, tmp_path: Path) -> None:
    questions = load_questions("rvs-ego", data)
    plan = plan_of(questions, "streaming")
    wanted = answers(backend, plan, AnswerLog.open(tmp_path / "whole", {}))

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_all(backend, plan, AnswerLog.open(tmp_path / "cut", {}), interrupt)
    assert len(backend.store.list_streams()) == 1, "the video under way is kept"
    kept = (tmp_path / "cut" / "answers.jsonl").read_bytes()
    assert kept.count(b"\n") == 5
    told: list[tuple[int, int]] = []
    log = AnswerLog.open(tmp_path / "cut", {})
    answer_all(backend, plan, log, lambda done, total: told.append((done, total)))

    assert (tmp_path / "cut" / "answers.jsonl").read_bytes().startswith(kept)
    assert told == [(done, 12) for done in range(5, 13)]
    for key, record in wanted.items():
        again = log.get(*key)
        assert again is not None
        assert (again.text, again.tokens_seen, again.tokens_kept, again.evidence, again.context_tokens) == (
            record.text, record.tokens_seen, record.tokens_kept, record.evidence, record.context_tokens,
        )  # fmt: skip


def test_a_memory_that_has_gone_past_a_question_is_begun_anew(
    backend: Backend, data: Path, tmp_path: Path, model: VideoModel
) -> None:
    late, early, _, _ = load_questions("rvs-ego", data)

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_all(backend, plan_of([late], "streaming", CACHEFLOW), AnswerLog.open(tmp_path, {}), interrupt)
    (record,) = backend.store.list_streams()
    found = answers(backend, plan_of([early], "streaming", CACHEFLOW), AnswerLog.open(tmp_path, {}))
    assert record.stream_id.startswith("eval-")
    assert found[early.question_id, CACHEFLOW].tokens_seen == 6 * model.default_block_size


def test_nothing_is_done_twice(backend: Backend, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(load_questions("rvs-ego", data), "streaming", BLIND)
    log = AnswerLog.open(tmp_path, {})
    answers(backend, plan, log)
    monkeypatch.setattr(Answerer, "prepare_blind", None)
    monkeypatch.setattr(WatchedVideo, "__init__", None)
    answers(backend, plan, log)


def test_a_changed_question_is_refused_before_anything_is_asked(backend: Backend, data: Path, tmp_path: Path) -> None:
    plan = plan_of(load_questions("qaego4d", data), "offline", BLIND)
    answers(backend, plan, AnswerLog.open(tmp_path, {}))
    other = write_json(data / "other.json", [by_video("videos/v.mp4", choice(answer="nothing"))])
    with pytest.raises(SettingsMismatch, match="v1/0"):
        answers(backend, plan_of(load_questions("qaego4d", other), "offline", BLIND), AnswerLog.open(tmp_path, {}))


@pytest.mark.parametrize(("says_yes_at", "answered_at_s", "text"), [(7.0, 7.0, "3!"), (None, None, "no")])
def test_a_proactive_question_is_asked_every_second_until_its_moment(
    says_yes_at: float | None, answered_at_s: float | None, text: str, backend: Backend, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    polls: list[float] = []
    real = methods.ask_memory

    def acted(session: Session, words: Words) -> object:
        result = real(session, words)
        assert session.watched is not None
        now_s = session.watched.recent[-1].timestamp_s
        if "right time" in words.prompt:
            polls.append(now_s)
            said = "Yes" if now_s == says_yes_at else "no"
        else:
            said = "3!"
        return type(result)(**{name: getattr(result, name) for name in result.__slots__} | {"text": said})

    monkeypatch.setitem(METHODS, CACHEFLOW, acted)  # type: ignore[arg-type]
    plan = plan_of(load_questions("streamingbench", data), "streaming", CACHEFLOW)
    (record,) = answers(backend, plan, AnswerLog.open(tmp_path, {})).values()

    assert polls == [float(second) for second in range(5, 8 if says_yes_at else 13)]
    assert (record.answered_at_s, record.text) == (answered_at_s, text)


def test_a_video_that_cannot_be_decoded_is_left_out_and_told(backend: Backend, data: Path, tmp_path: Path) -> None:
    broken = touch(tmp_path / "broken.mp4")
    good = data / "videos" / "v.mp4"
    records = [by_video(str(broken), choice(), video_id="x"), by_video(str(good), choice())]
    questions = load_questions("qaego4d", write_json(tmp_path / "test_mc.json", records))
    log = AnswerLog.open(tmp_path, {})
    told = answer_all(backend, plan_of(questions, "offline", CACHEFLOW), log)
    assert list(told.skipped) == [str(broken)] and "empty" in told.skipped[str(broken)]
    assert ("v1/0", CACHEFLOW) in log and ("x/0", CACHEFLOW) not in log


def test_a_film_of_one_decoded_frame_per_second_is_sampled_as_a_video_is(tmp_path: Path) -> None:
    path = movie_array(tmp_path / "film.npy")
    assert [frame.timestamp_s for frame in array_frames(path, 0.5)] == [0, 2, 4, 6, 8, 10]
    assert [frame.seq for frame in array_frames(path, 0.5)] == list(range(6))
    with WatchedVideo(path, fps=1.0, keep=2) as early:
        assert [frame.timestamp_s for frame in early.until(-0.5)] == [0], "there is always something to ask about"
    with WatchedVideo(path, fps=1.0, keep=2) as watched:
        assert [frame.timestamp_s for frame in watched.until(2.5)] == [0, 1, 2]
        assert [frame.timestamp_s for frame in watched.until(2.5)] == []
        assert [frame.timestamp_s for frame in watched.until(4.0)] == [3, 4]
        assert [frame.timestamp_s for frame in watched.recent] == [3, 4]


def test_answers_are_lines_of_json(backend: Backend, data: Path, tmp_path: Path) -> None:
    answers(backend, plan_of(load_questions("qaego4d", data, 1), "offline", BLIND), AnswerLog.open(tmp_path, {}))
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["question_id"] == "v1/0" and told["method"] == BLIND and told["latency_s"] > 0
