"""The chat template cut in two at the video: what stands before it for ever, and the question after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cacheflow_ray.errors import EmptyQuestion, UnsupportedModel

VIDEO = {"type": "video"}

#: Stands for the question while the template is rendered (private use characters), so that its place is known even
#: where the same words stand elsewhere.
_QUESTION = "\ue000\ue001\ue000"


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
        template: Jinja chat template (Hugging Face messages with a `video` part), or None: the model has none.
        video_text: what the template writes for a video; the prompt is cut there.

    Raises:
        UnsupportedModel: no template, or one that does not write video marker and question exactly once.
    """

    def __init__(self, tokenizer: Any, template: str | None, video_text: str) -> None:
        if not template:
            raise UnsupportedModel(
                "the model has no chat template: use a checkpoint whose tokenizer or processor brings one (an "
                "instruction-tuned model)"
            )
        self._tokenizer, self._template, self._video_text = tokenizer, template, video_text
        self._control = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self.prefix_ids: tuple[int, ...] = tuple(self._ids(self._split(())[0]))

    def suffix(self, turns: Sequence[Turn]) -> Suffix:
        """The prompt after the video for a conversation whose last turn is the question to answer.

        Nothing said in a turn counts as a control token of the model ("<|im_end|>" is set apart: "< |im_end|>").

        Raises:
            EmptyQuestion: the last question has no words.
        """
        asked = self._plain(turns[-1].question)
        if not asked:
            raise EmptyQuestion('the question is empty: ask something, for example "what is on the table?"')
        _, before, after = self._split(turns[:-1])
        start, stop = len(before), len(before) + len(asked)
        encoded = self._tokenizer(before + asked + after, add_special_tokens=False, return_offsets_mapping=True)
        inside = tuple(begin < stop and end > start for begin, end in encoded["offset_mapping"])
        return Suffix(ids=tuple(encoded["input_ids"]), question=inside)

    def _split(self, earlier: Sequence[Turn]) -> tuple[str, str, str]:
        """A conversation as text: up to the video, from there to the question, and what follows the question."""
        messages: list[dict[str, Any]] = []
        for turn in (*earlier, Turn(question=_QUESTION)):
            content: list[dict[str, str]] = [{"type": "text", "text": self._plain(turn.question)}]
            messages.append({"role": "user", "content": content if messages else [VIDEO, *content]})
            if turn.answer is not None:
                messages.append({"role": "assistant", "content": [{"type": "text", "text": self._plain(turn.answer)}]})
        text: str = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
        )
        for what, mark in ((repr(self._video_text), self._video_text), ("the question", _QUESTION)):
            if text.count(mark) != 1:
                raise UnsupportedModel(
                    f"the model's chat template writes {what} {text.count(mark)} times, where exactly once is needed: "
                    "use a checkpoint whose template takes a video and a question",
                    video_text=self._video_text,
                )
        prefix, rest = text.split(self._video_text)
        before, after = rest.split(_QUESTION)
        return prefix, before, after

    def _plain(self, words: str) -> str:
        for token in self._control:
            words = words.replace(token, f"{token[0]} {token[1:]}")
        return words.strip()

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
