"""Every question has exactly one right answer, found by looking through the whole stream; and none can be guessed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.world import KINDS, Difficulty, Question, Script, follow_up, make_questions, make_script, vocabulary
from tests.world.checker import answers

LENGTHS = (1, 2, 7, 12, 24, 64, 130, 256, 600)


def streams(level: float) -> list[Script]:
    crowded = replace(Difficulty.level(level), density=1.2, at_once=4, duration_s=(1.0, 3.0))
    kinds = (Difficulty.level(level), crowded)
    return [make_script(seed, length, kinds[seed % 2]) for seed in range(14) for length in LENGTHS]


def asked(num_streams: int, length: int = 256) -> list[Question]:
    scripts = [make_script(seed, length, Difficulty.level(0.5)) for seed in range(num_streams)]
    return [question for script in scripts for question in make_questions(script)]


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_every_question_has_one_right_answer_given_the_whole_stream(level: float) -> None:
    kinds = Counter()
    for script in streams(level):
        for question in make_questions(script, per_kind=30):
            assert answers(script, question.text) == {question.answer}, (script.seed, question.text)
            assert question.answer in question.choices
            kinds[question.kind] += 1
    assert set(kinds) == set(KINDS)


def test_one_answer_also_at_film_rate_and_in_a_long_stream() -> None:
    for script in (make_script(3, 2400, Difficulty.level(0.8), fps=4.0), make_script(4, 36_000, Difficulty.level(1.0))):
        questions = make_questions(script)
        assert Counter(question.kind for question in questions) == dict.fromkeys(KINDS, 4)
        assert all(answers(script, question.text) == {question.answer} for question in questions)


def test_truth_is_when_the_asked_things_are_seen() -> None:
    script = make_script(5, 1200, Difficulty.level(0.5), fps=4.0)
    for question in make_questions(script):
        assert question.truth == tuple((frames[0] / 4, frames[-1] / 4) for frames in question.frames)
        words = question.text.split()
        for event, frames in zip(question.events, question.frames, strict=True):
            known = {event.thing.colour, event.thing.shape, event.thing.number}
            assert len(known & set(words)) == 2
            assert all(event in script.active(index) for index in frames)
            assert event not in script.active(frames[0] - 1) and event not in script.active(frames[-1] + 1)


def test_a_no_has_its_color_and_its_shape_elsewhere_and_there_is_one_for_every_yes() -> None:
    for script in streams(0.5):
        questions = make_questions(script, kinds=["yesno"], per_kind=20)
        seen = [event.thing for event in script.events]
        for question in questions:
            _, _, colour, shape, _ = question.text.split()
            if question.answer == "no":
                assert question.events == ()
                assert colour in {thing.colour for thing in seen} and shape in {thing.shape for thing in seen}
        assert 2 * sum(question.answer == "yes" for question in questions) == len(questions)


def test_no_answer_is_more_likely_than_chance() -> None:
    by_kind: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    chance: dict[str, set[float]] = {kind: set() for kind in KINDS}
    for question in asked(400):
        # Of the two colours an order question names, what can be guessed is the position.
        answer = str(question.choices.index(question.answer)) if question.kind == "order" else question.answer
        by_kind[question.kind][answer] += 1
        chance[question.kind].add(question.chance)
    assert chance == {
        "color": {1 / 8},
        "shape": {1 / 9},
        "number": {1 / 10},
        "where": {1 / 9},
        "yesno": {1 / 2},
        "order": {1 / 2},
        "count": {1 / 4},
    }
    for kind, seen in by_kind.items():
        (expected,) = chance[kind]
        assert len(seen) == round(1 / expected)
        spread = 4 * (expected * (1 - expected) / seen.total()) ** 0.5
        assert all(abs(times / seen.total() - expected) < spread for times in seen.values()), (kind, seen)


def test_a_count_is_as_likely_in_streams_so_short_that_few_needles_fit() -> None:
    seen: Counter[str] = Counter()
    for seed in range(400):
        for question in make_questions(make_script(seed, 80, Difficulty.level(0.5)), kinds=["count"]):
            seen[question.answer] += 1
    assert set(seen) == {"one", "two", "three", "four"}
    assert all(abs(times / seen.total() - 0.25) < 0.09 for times in seen.values()), seen


def test_distractor_digits_do_not_give_a_needle_number_away() -> None:
    shared: list[bool] = []
    for seed in range(60):
        script = make_script(seed, 900, Difficulty.level(0.8))
        for question in make_questions(script, kinds=["number"]):
            needle = question.events[0].thing
            others = [event.thing for event in script.events if event.thing.pair != needle.pair]
            for alike in (
                [thing.digit for thing in others if thing.colour == needle.colour],
                [thing.digit for thing in others if thing.shape == needle.shape],
            ):
                if len(alike) > 25:
                    shared.append(needle.digit in alike)
    assert len(shared) > 200
    assert sum(shared) > 0.9 * len(shared)


def test_distractors_exclude_few_colors_and_shapes() -> None:
    left: dict[str, list[float]] = {"color": [], "shape": []}
    for seed in range(40):
        script = make_script(seed, 2000)
        needles = {needle.thing.pair for needle in script.needles}
        seen = {event.thing.pair for event in script.events} - needles
        for question in make_questions(script, kinds=["color", "shape"]):
            thing = question.events[0].thing
            pairs = [(c, thing.shape) if question.kind == "color" else (thing.colour, c) for c in question.choices]
            left[question.kind].append(1 / sum(pair not in seen for pair in pairs))
    assert sum(left["color"]) / len(left["color"]) < 0.175
    assert sum(left["shape"]) / len(left["shape"]) < 0.165


def test_needles_are_spread_evenly_over_the_stream() -> None:
    deciles: Counter[int] = Counter()
    for seed in range(120):
        script = make_script(seed, 1000)
        shown = {needle.thing for needle in script.needles}
        deciles.update((e.start + e.stop) // 2 * 10 // 1000 for e in script.events if e.thing in shown)
    assert set(deciles) == set(range(10))
    assert all(abs(seen / deciles.total() - 0.1) < 0.025 for seen in deciles.values()), deciles


def test_questions_are_made_of_the_vocabulary_which_holds_each_word_once() -> None:
    words = vocabulary()
    assert len(set(words)) == len(words)
    for question in asked(20):
        assert set(question.text.split()) | set(question.choices) <= set(words)


def test_leaving_a_kind_out_changes_no_other_question() -> None:
    script = make_script(2, 256)
    every = make_questions(script)
    assert make_questions(script) == every
    for kind in KINDS:
        assert make_questions(script, kinds=[kind]) == tuple(q for q in every if q.kind == kind)


def test_a_follow_up_asks_of_the_same_thing() -> None:
    made = 0
    for seed in range(10):
        script = make_script(seed, 256)
        for question in make_questions(script):
            more = follow_up(script, question)
            if more is None:
                continue
            made += 1
            (event,) = question.events
            assert more.after == question and more.events == question.events and "it" in more.text.split()
            full = more.text.replace("it", f"the {event.thing.colour} {event.thing.shape}")
            assert answers(script, full) == {more.answer}
    assert made > 20


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="why"):
        make_questions(make_script(0, 10), kinds=["why"])  # type: ignore[list-item]
