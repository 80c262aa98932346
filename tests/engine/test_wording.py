"""A question put in other words than its own, with no video at all, and asked in the midst of a stream."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.answerer import Answer, Answerer, Prepared
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.wording import Wording
from cacheflow_ray.engine.writer import StreamWriter
from cacheflow_ray.errors import QuestionTooLong, SettingsMismatch
from cacheflow_ray.models import Turn, VideoModel
from memory_store import Store
from tests.oracles import FAMILIES, context_logits, encode, moving_frames, settings, stored_kv, toy_model

OPENING = "Best option: ("


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return toy_model("tiny-llava-onevision")


def asked(prepared: Prepared) -> str:
    return Answer(prepared, lambda text: None).result.text


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_opened_at_the_very_end_of_the_prompt(family: str) -> None:
    own = toy_model(family)
    turns = [Turn(question="Which? (A) one (B) two")]
    plain = Wording().asked(own.prompt, turns)
    opened = Wording(opening=OPENING).asked(own.prompt, turns)
    text = own._loaded.tokenizer.decode(opened.ids)

    assert text.endswith(f"assistant\n{OPENING}") and opened.ids[: len(plain.ids)] == plain.ids
    assert sum(opened.question) == sum(plain.question), "retrieval does not go by the opening"


def test_blocks_are_looked_up_by_the_question_alone(model: VideoModel) -> None:
    turns = [Turn(question="Question: What is it?\nOptions:\n(A) cat\n(B) dog")]
    asked_for = Wording().asked(model.prompt, turns)
    sought = Wording(looked_for="What is it?").sought(model.prompt, asked_for)
    words = [token for token, own in zip(sought.ids, sought.question, strict=True) if own]

    assert model._loaded.tokenizer.decode(words) == "What is it?"
    assert Wording().sought(model.prompt, asked_for) is asked_for


def test_what_is_looked_for_decides_what_is_retrieved(model: VideoModel, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        backend = Backend(model=model, store=store)
        encode(backend, {"s": moving_frames(60)}, settings(window_blocks=1), chunk=8)
        options, turns = AskOptions(top_k=2, max_new_tokens=1), [Turn(question="Which of them? (A) x (B) y")]

        def found(wording: Wording) -> object:
            return Answerer(backend).prepare("s", turns, options, wording).evidence

        assert found(Wording(looked_for=turns[0].question)) == found(Wording())
        looked_for = ("zebra crossing", "7", "Who came in at night?", "%%%%")
        assert any(found(Wording(looked_for=words)) != found(Wording()) for words in looked_for)


@pytest.mark.parametrize("question", ["What now?", "a b c"])
def test_a_blind_question_is_the_prompt_without_video(question: str, model: VideoModel, tmp_path: Path) -> None:
    options = AskOptions(max_new_tokens=6)
    wording = Wording(opening=OPENING)
    turns = [Turn(question=question)]
    with Store.open(tmp_path) as store:
        prepared = Answerer(Backend(model=model, store=store)).prepare_blind(turns, options, wording)
        text = asked(prepared)

    assert prepared.usage.context_tokens == model.prefix.length and prepared.evidence == ()
    # The ordinary model's own choice of the first token, computed here from the prefix alone.
    suffix = wording.asked(model.prompt, turns)
    logits = context_logits(model, model.context(model.prefix.length + 200), suffix.ids, model.prefix.length)
    first = model._loaded.tokenizer.decode([int(torch.argmax(logits[-1]))])
    assert first.isalnum() and text[0] == first


def test_a_blind_question_that_does_not_fit_is_refused(model: VideoModel, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(QuestionTooLong):
        Answerer(Backend(model=model, store=store)).prepare_blind([Turn(question="x" * 5000)], AskOptions())


def test_frames_pushed_step_by_step_are_the_stream_an_ingest_makes(model: VideoModel, tmp_path: Path) -> None:
    frames = moving_frames(30)
    with Store.open(tmp_path) as store:
        backend = Backend(model=model, store=store)
        encode(backend, {"whole": frames}, settings(), chunk=8)
        writer = StreamWriter(backend, "steps", settings=settings())
        seen: list[int] = []
        for start, stop in ((0, 5), (5, 6), (6, 19)):
            writer.push(frames[start:stop])
            seen.append(writer.state.counters.frames)
        again = StreamWriter(backend, "steps", settings=settings())
        assert again.state.next_seq == 19
        again.push(frames[10:])
        again.finish()

        assert seen == [5, 6, 19] and again.state.counters.duplicates == 9
        torch.testing.assert_close(stored_kv(backend, "steps"), stored_kv(backend, "whole"), rtol=0, atol=1e-5)
        with pytest.raises(SettingsMismatch, match="tau"):
            StreamWriter(backend, "steps", settings=settings(tau=0.1))
