"""What answers are read as, and whether they are right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.eval.benchmark.prompts import choice_prompt, without_letter
from cacheflow_ray.eval.benchmark.questions import LETTERS, Choice, Count, OpenAnswer, Proactive, Truth, YesNo
from cacheflow_ray.eval.benchmark.scoring import (
    is_contained,
    is_same,
    plain_words,
    read_count,
    read_letter,
    read_yes,
    verdict,
)

#: How models write the letter they choose, after "Best option: (" and without it.
RENDERED = (
    "{}", "{})", "({})", "{}.", " {}) {}", "({}) {}", "{}. {}", "{}: {}", "{}\n{}", "**{}**", "'{}'",
    "The answer is {}", "The answer is {}.", "The correct answer is ({}) {}", "Answer: {}", "Best option: ({}) {}",
    "Option {}", "The best option is {}, {}",
)  # fmt: skip

NUM_OPTIONS = st.integers(2, 8)
WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz ", max_size=30)


@given(num_options=NUM_OPTIONS, index=st.integers(0, 7), form=st.sampled_from(RENDERED), words=WORDS)
def test_a_letter_is_read_however_it_is_written(num_options: int, index: int, form: str, words: str) -> None:
    index %= num_options
    assert read_letter(form.format(LETTERS[index], words), num_options) == index


@given(num_options=NUM_OPTIONS, index=st.integers(0, 7), words=WORDS)
def test_a_small_letter_counts_where_it_is_marked(num_options: int, index: int, words: str) -> None:
    index %= num_options
    assert read_letter(f"{LETTERS[index].lower()}) {words}", num_options) == index


@given(text=st.text(max_size=80), num_options=NUM_OPTIONS)
def test_any_text_is_an_option_there_is_or_none(text: str, num_options: int) -> None:
    index = read_letter(text, num_options)
    assert index is None or 0 <= index < num_options


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("", None), ("A cat on a mat", None), ("I think so", None), ("a cat", None), ("E) five", None), ("42", None),
        ("I think it is (C)", 2), ("It must be B because of D", 1), ("None of these, so D.", 3),
    ],
)  # fmt: skip
def test_what_is_no_letter_is_not_taken_for_one(text: str, index: int | None) -> None:
    assert read_letter(text, 4) == index


@given(option=st.text(alphabet="abcdef xyz", min_size=1, max_size=20).filter(str.strip), index=st.integers(0, 9))
def test_a_lettered_option_is_the_option(option: str, index: int) -> None:
    letter = LETTERS[index]
    for lettered in (f"{letter}. {option}", f"{letter}) {option}", f"({letter}) {option}", f"{letter}.{option}"):
        assert without_letter(lettered) == option.strip()
    assert without_letter(option) == option.strip()


def test_initials_are_no_letters() -> None:
    assert without_letter("D.C. United") == "D.C. United" and without_letter("A.") == "A."


def test_a_prompt_letters_its_options() -> None:
    assert choice_prompt("Q?", ["x", "y"]).splitlines()[2:4] == ["(A) x", "(B) y"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("Yes", True), ("yes, it is", True), ("No.", False), ("Y", True), ("n", False), ("Nothing", None), ("", None),
     ("Not yet", None), ("“Yes”", True), ("Well, no, yes", False)],
)  # fmt: skip
def test_yes_and_no_are_words(text: str, said: bool | None) -> None:
    assert read_yes(text) is said


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("3 times", 3), ("about 12.", 12), ("none", None), ("", None)])
def test_a_count_is_its_digits(text: str, number: int | None) -> None:
    assert read_count(text) == number


@given(st.text(max_size=60))
def test_plain_words_stay_plain(text: str) -> None:
    assert plain_words(plain_words(text)) == plain_words(text)
    assert is_same(text, text)


def test_words_are_contained_whole_and_in_order() -> None:
    assert is_contained("It is the Red ball.", "red ball") and is_same("The red ball!", "red  ball")
    assert not is_contained("a redder ball", "red ball") and not is_contained("ball red", "red ball")
    assert not is_same("a red ball here", "red ball") and not is_contained("anything", "the")


PROACTIVE = Proactive(output="3", asked_s=4.0, due_s=8.0, gate="?")


@pytest.mark.parametrize(
    ("truth", "text", "at_s", "correct"),
    [
        (Choice(index=1, num_options=3), "B) x", None, True),
        (Choice(index=1, num_options=3), "A) x", None, False),
        (Choice(index=1, num_options=3), "no idea", None, False),
        (Choice(index=None, num_options=3), "B", None, None),
        (YesNo(holds=False), "No", None, True),
        (YesNo(holds=False), "maybe", None, False),
        (Count(number=2), "2", None, True),
        (Count(number=2), "22", None, False),
        (OpenAnswer(text="red"), "red", None, None),
        (PROACTIVE, "3", 6.0, True),
        (PROACTIVE, "It is 3", 10.0, True),
        (PROACTIVE, "3", 5.9, False),
        (PROACTIVE, "3", 10.1, False),
        (PROACTIVE, "4", 8.0, False),
        (PROACTIVE, "3", None, False),
    ],
)
def test_a_verdict_follows_the_truth(truth: Truth, text: str, at_s: float | None, correct: bool | None) -> None:
    assert verdict(truth, text, at_s).correct is correct


def test_open_answers_are_scored_by_words_when_asked_to() -> None:
    truth = OpenAnswer(text="a red ball")
    assert verdict(truth, "Red ball.", scorer="exact").correct is True
    assert verdict(truth, "I see a red ball.", scorer="exact").correct is False
    assert verdict(truth, "I see a red ball.", scorer="contains").correct is True
