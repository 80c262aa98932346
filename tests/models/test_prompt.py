"""Where the video stands, where the question stands, and what counts as the question's words."""

from __future__ import annotations

from typing import Any

import pytest

from cacheflow_ray.errors import EmptyQuestion, UnsupportedModel
from cacheflow_ray.models import Turn, VideoModel
from cacheflow_ray.models.prompt import Prompt, Suffix
from cacheflow_ray.models.random_weights import byte_tokenizer


def words(model: VideoModel, suffix: Suffix) -> str:
    """The text of the ids marked as the question's own."""
    own = [token for token, inside in zip(suffix.ids, suffix.question, strict=True) if inside]
    return str(model._loaded.tokenizer.decode(own))


def text(model: VideoModel, suffix: Suffix) -> str:
    return str(model._loaded.tokenizer.decode(suffix.ids))


def control_ids(model: VideoModel, suffix: Suffix) -> list[int]:
    return [token for token in suffix.ids if token in model._loaded.tokenizer.added_tokens_decoder]


@pytest.mark.parametrize(
    "question", ["what moves?", "assistant", "a", "user", "im_start", "two\nlines", "wer läuft? 🐈"]
)
def test_mask_covers_exactly_the_words_asked(model: VideoModel, question: str) -> None:
    """Also where the template holds the same words, before or after them."""
    suffix = model.prompt.suffix([Turn(question=f"  {question} ")])
    assert words(model, suffix) == question
    marked = [place for place, inside in enumerate(suffix.question) if inside]
    assert marked == list(range(marked[0], marked[-1] + 1))
    assert text(model, suffix).endswith(f"{question}<|im_end|>\n<|im_start|>assistant\n")


def test_words_of_earlier_turns_are_not_the_question(model: VideoModel) -> None:
    turns = [Turn(question="what moves?", answer="what moves? a ball"), Turn(question="what moves?")]
    suffix = model.prompt.suffix(turns)
    assert words(model, suffix) == "what moves?"
    marked = next(place for place, inside in enumerate(suffix.question) if inside)
    before = model._loaded.tokenizer.decode(suffix.ids[:marked])
    assert before.count("what moves?") == 2 and before.endswith("<|im_start|>user\n")


def test_turns_are_rendered_in_order_after_one_video(model: VideoModel) -> None:
    turns = [Turn(question="who?", answer="Ann."), Turn(question="where?", answer="Here."), Turn(question="when?")]
    rendered = text(model, model.prompt.suffix(turns))
    wanted = (
        "who?<|im_end|>\n<|im_start|>assistant\nAnn.<|im_end|>\n"
        "<|im_start|>user\nwhere?<|im_end|>\n<|im_start|>assistant\nHere.<|im_end|>\n"
        "<|im_start|>user\nwhen?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert rendered.removeprefix("<|vision_end|>") == wanted


def test_prefix_video_and_suffix_are_the_templates_own_text(model: VideoModel) -> None:
    tokenizer = model._loaded.tokenizer
    content = [{"type": "video"}, {"type": "text", "text": "who?"}]
    wanted = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    prefix = tokenizer.decode(model.prompt.prefix_ids)
    suffix = text(model, model.prompt.suffix([Turn(question="who?")]))
    assert f"{prefix}{model._parts.video_text}{suffix}" == wanted


@pytest.mark.parametrize("question", ["", "  \n\t"])
def test_question_without_words_is_refused(model: VideoModel, question: str) -> None:
    with pytest.raises(EmptyQuestion, match="the question is empty"):
        model.prompt.suffix([Turn(question="who?", answer="Ann."), Turn(question=question)])


@pytest.mark.parametrize(
    "marker", ["<video>", "<|video_pad|>", "<|vision_start|><|video_pad|><|vision_end|>", "<|im_end|>"]
)
def test_control_tokens_in_a_question_are_only_words(model: VideoModel, marker: str) -> None:
    """Neither a second video nor the end of the turn."""
    plain = model.prompt.suffix([Turn(question="who? and")])
    suffix = model.prompt.suffix([Turn(question=f"who? {marker} and")])
    assert control_ids(model, suffix) == control_ids(model, plain)
    assert words(model, suffix).replace(" ", "") == f"who?{marker}and"


def templates() -> dict[str, tuple[str | None, str]]:
    """Templates nothing can be asked with, and what the refusal says."""
    words = "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}"
    return {
        "none": (None, "no chat template"),
        "without video": (words, "writes '<video>' 0 times"),
        "two videos": ("<video><video>" + words, "writes '<video>' 2 times"),
        "without question": ("<video>{{ messages[0]['role'] }}", "writes the question 0 times"),
    }


@pytest.mark.parametrize("which", templates())
def test_unusable_template_is_refused(which: str) -> None:
    template, reason = templates()[which]
    tokenizer: Any = byte_tokenizer("<video>")
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        Prompt(tokenizer, template, "<video>")
    assert "\n" not in str(caught.value)
