"""The chat template cut in two at the video: what stands before it for ever, and the question after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cacheflow_ray.errors import EmptyQuestion, UnsupportedModel

VIDEO = {"type": "video"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One exchange of a conversation about a video; `answer` is None in the turn being asked."""

    question: str
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suffix:
    """Everything after the video.

    Args:
        ids: token ids up to where the answer starts.
        question: True for the ids that belong to the last question's own words (not the template, not earlier turns).
    """

    ids: tuple[int, ...]
    question: tuple[bool, ...]


class Prompt:
    """A model's conversation format.

    Args:
        tokenizer: fast tokenizer of the model.
        template: Jinja chat template (Hugging Face messages with a `video` part).
        video_text: what the template writes for a video; the prompt is cut there.

    Raises:
        UnsupportedModel: the template does not write the video marker exactly once.
    """

    def __init__(self, tokenizer: Any, template: str, video_text: str) -> None:
        self._tokenizer, self._template, self._video_text = tokenizer, template, video_text
        self.prefix_ids: tuple[int, ...] = tuple(self._ids(self._split([Turn(question="question")])[0]))

    def suffix(self, turns: Sequence[Turn]) -> Suffix:
        """The prompt after the video for a conversation whose last turn is the question to answer.

        Raises:
            EmptyQuestion: the last question has no words.
        """
        asked = turns[-1].question.strip()
        if not asked:
            raise EmptyQuestion('the question is empty: ask something, for example "what is on the table?"')
        text = self._split(turns)[1]
        start = text.rindex(asked)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        inside = tuple(begin < start + len(asked) and end > start for begin, end in encoded["offset_mapping"])
        return Suffix(ids=tuple(encoded["input_ids"]), question=inside)

    def _split(self, turns: Sequence[Turn]) -> tuple[str, str]:
        messages: list[dict[str, Any]] = []
        for number, turn in enumerate(turns):
            content: list[dict[str, str]] = [{"type": "text", "text": turn.question.strip()}]
            messages.append({"role": "user", "content": content if number else [VIDEO, *content]})
            if turn.answer is not None:
                messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
        text = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
        )
        parts = text.split(self._video_text)
        if len(parts) != 2:
            raise UnsupportedModel(
                f"the model's chat template writes {self._video_text!r} {len(parts) - 1} times for one video, where "
                "exactly one is needed: use a checkpoint whose template takes a video",
                video_text=self._video_text,
            )
        return parts[0], parts[1]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
