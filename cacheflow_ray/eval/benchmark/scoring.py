"""What an answer is worth, where no judge is needed: letters, yes or no, numbers, words."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass

from cacheflow_ray.eval.benchmark.questions import (
    LETTERS,
    PROACTIVE_SLACK_S,
    Choice,
    Count,
    OpenAnswer,
    Proactive,
    Truth,
    YesNo,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether an answer is right.

    Args:
        correct: None where nobody can tell: no truth is given, or no judge has judged yet.
        score: a judge's 0 to 5; None from everybody else.
    """

    correct: bool | None
    score: float | None = None


_LEAD = r"(?:the\s+)?(?:best|correct|right|final)?\s*(?:option|answer|choice)\s*(?:is|:)?\s*:?\s*"
_LETTER = re.compile(rf"^\W*(?:{_LEAD})?[\s*(\['\"]*([A-Ja-j])(?:[).:,\]*'\"]|\s*$|\s*\n)", re.IGNORECASE)
_STATED = re.compile(rf"{_LEAD}[\s*(\['\"]*([A-J])\b(?!\s+[a-z])", re.IGNORECASE)
_BRACKETED = re.compile(r"\(([A-J])\)")
_ALONE = re.compile(r"\b([B-J])\b(?!')|\b(A)\b(?=[).:,\]]|\s*$)")


def read_letter(text: str, num_options: int) -> int | None:
    """The option an answer names, from 0: the letter it begins with ("A) a cat", "(A)", "A."), else the one it states.

    None where it names none of the `num_options`. The article in "A cat" is no letter.
    """
    for pattern in (_LETTER, _STATED, _BRACKETED, _ALONE):
        for found in pattern.finditer(text):
            letter = next(group for group in found.groups() if group)
            if not letter.isupper() and pattern is not _LETTER:
                continue
            index = LETTERS.find(letter.upper())
            if 0 <= index < num_options:
                return index
    return None


def read_yes(text: str) -> bool | None:
    """Whether an answer says yes; None where it says neither yes nor no. "Y" and "N" count when they stand alone."""
    words = text.strip().strip(string.punctuation + "“”").lower()
    if words in ("y", "n"):
        return words == "y"
    found = re.search(r"\b(yes|no)\b", words)
    return None if found is None else found[1] == "yes"


def read_count(text: str) -> int | None:
    """The number an answer gives: all its digits together, as OVO-Bench reads them; None without any."""
    digits = "".join(re.findall(r"[0-9]+", text))[:18]
    return int(digits) if digits else None


def plain_words(text: str) -> str:
    """Lower case, without punctuation and articles, single blanks."""
    kept = re.sub(r"[^\w\s]", " ", text.lower())
    return " ".join(word for word in kept.split() if word not in ("a", "an", "the"))


def is_same(answer: str, wanted: str) -> bool:
    """Whether both are the same words."""
    return plain_words(answer) == plain_words(wanted)


def is_contained(answer: str, wanted: str) -> bool:
    """Whether the wanted words stand in the answer, side by side. Nothing wanted is contained nowhere."""
    words = plain_words(wanted)
    return bool(words) and f" {words} " in f" {plain_words(answer)} "


#: How open answers are scored without a judge.
WORD_SCORERS: dict[str, Callable[[str, str], bool]] = {"exact": is_same, "contains": is_contained}


def verdict(truth: Truth, text: str, answered_at_s: float | None = None, *, scorer: str = "judge") -> Verdict:
    """Score one answer.

    Args:
        answered_at_s: when a proactive answer came; None: never.
        scorer: of open answers, a name of WORD_SCORERS; with "judge" they are left undecided.
    """
    match truth:
        case Choice(index=None):
            return Verdict(correct=None)
        case Choice():
            return Verdict(correct=read_letter(text, truth.num_options) == truth.index)
        case YesNo():
            return Verdict(correct=read_yes(text) == truth.holds)
        case Count():
            return Verdict(correct=read_count(text) == truth.number)
        case Proactive():
            return Verdict(correct=is_on_time(truth, answered_at_s) and truth.output in text)
        case OpenAnswer():
            compare = WORD_SCORERS.get(scorer)
            return Verdict(correct=None if compare is None else compare(text, truth.text))


def is_on_time(truth: Proactive, answered_at_s: float | None) -> bool:
    """Whether a proactive answer came within 2 seconds of its moment."""
    return answered_at_s is not None and abs(answered_at_s - truth.due_s) <= PROACTIVE_SLACK_S
