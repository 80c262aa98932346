"""How the questions are worded. Multiple choice as ReKV's published code has it, its answer opened by "Best option: (".

OVO-Bench's forward tasks and StreamingBench's proactive ones follow their benchmarks' own prompts in sense.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cacheflow_ray.eval.benchmark.questions import LETTERS

#: What the answer to a multiple-choice question is made to begin with: the model goes on with a letter.
CHOICE_OPENING = "Best option: ("

#: "A.", "A)" or "(A)" before an option; not initials ("D.C.").
_PREFIX = re.compile(r"^\s*(?:\(([A-J])\)|([A-J])[.)](?![A-Z]\.))\s*")


def choice_prompt(question: str, options: Sequence[str], context: str = "") -> str:
    """A multiple-choice question, its options lettered "(A)" and on.

    Args:
        context: what was said before, put ahead of the question.
    """
    lettered = "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{context}Question: {question}\nOptions:\n{lettered}\nOnly give the best option."


def without_letter(option: str) -> str:
    """An option less the letter it may come with."""
    return _PREFIX.sub("", option, count=1).strip() or option.strip()


def repaired(options: Sequence[str], num_options: int = 4) -> list[str]:
    """Options without their letters. A list that is too long holds torn or repeated ones.

    Where there are as many as there should be, their places count: letters are doubled or lacking in some records. In a
    longer list what has no letter belongs to the option before it, and of a letter that comes twice the first counts.
    """
    if len(options) <= num_options:
        return [without_letter(option) for option in options]
    by_letter: dict[str, str] = {}
    current: str | None = None
    for option in options:
        found = _PREFIX.match(option)
        if found:
            letter = found[1] or found[2]
            current = None if letter in by_letter else letter
            if current is not None:
                by_letter[current] = without_letter(option)
        elif current is not None:
            by_letter[current] += f" {option.strip()}"
    return list(by_letter.values()) or [option.strip() for option in options]


def earlier_turn(time: str, question: str, options: Sequence[str], letter: str) -> str:
    """A question of StreamingBench's sequential task with its right answer, as context of those after it."""
    told = ", ".join(f"{mark}. {option}" for mark, option in zip(LETTERS, options, strict=False))
    return f"At {time} this question was asked: {question} Options: {told}. The answer was {letter}.\n"


def with_history(turns: str) -> str:
    """Context of a sequential question; "" for the first."""
    return f"What was asked about this video before:\n{turns}Now answer the next question.\n" if turns else ""


def repetition_prompt(activity: str) -> str:
    """OVO-Bench REC: how often something was done up to now."""
    return (
        "In this video people may do one kind of action again and again; 'they' are the people who do it. Count how "
        "often it was done in all, by whomever; one complete motion counts as one.\n"
        f"Question: How many times did they {activity}?\nAnswer with a single number and nothing else."
    )


def step_prompt(step: str) -> str:
    """OVO-Bench SSR: whether a step of a tutorial is being done now."""
    return (
        "This is a tutorial video with a sequence of steps. One of them is:\n"
        f"{step}\nIs the person in the video doing this step right now? Answer only Yes or No."
    )


def clue_prompt(question: str) -> str:
    """OVO-Bench CRR: whether what has been seen is enough for an answer."""
    return (
        "The following question is about the latest frames, the end of the video so far.\n"
        f"{question}\nDoes what is visible, the latest frames above all, give enough information to answer it? Answer "
        "only Yes or No."
    )


def gate_prompt(instruction: str, output: str) -> str:
    """StreamingBench proactive output: whether its moment has come."""
    return f'{instruction} Is it the right time to output "{output}"? You can only answer yes or no.'
