"""Answers: the unmodified model's own words, piece by piece, from a thread that ends when nobody listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.models import Suffix, Turn, VideoModel
from cacheflow_ray.models.generation import INCOMPLETE, Generation, TokenSink
from cacheflow_ray.models.random_weights import byte_tokenizer
from tests.oracles import encode, moving_frames, native_inputs, settings

TOKENIZER = byte_tokenizer("<video>")
QUESTION = "what moves?"


def asked(model: VideoModel) -> Suffix:
    return model.prompt.suffix([Turn(question=QUESTION)])


def greedy(model: VideoModel, max_new_tokens: int, suffix: Suffix | None = None, room: int | None = None) -> Generation:
    """An answer from a context that holds the prefix alone."""
    suffix = suffix or asked(model)
    needed = model.num_after_video + len(suffix.ids) + max_new_tokens
    context = model.context(model.prefix.length + (needed if room is None else room))
    return model.generate(context, suffix, model.prefix.length, max_new_tokens)


def ids_of(model: VideoModel, generation: Generation) -> list[int]:
    """The ids themselves."""
    sink = TokenSink()
    generation._run(sink)
    return list(sink)


def speaking(ids: Sequence[int]) -> Callable[[TokenSink], None]:
    def run(sink: TokenSink) -> None:
        for token in ids:
            sink.put(token)
        sink.end()

    return run


def is_generating() -> bool:
    return any(thread.name == "generate" for thread in threading.enumerate())


def has_stopped() -> bool:
    """Within a moment."""
    until = time.monotonic() + 20
    while is_generating() and time.monotonic() < until:
        time.sleep(0.01)
    return not is_generating()


def test_ask_answers_as_the_unmodified_model_does(model: VideoModel, tmp_path: Path) -> None:
    """A short stream, nothing dropped: the model's own generate() on the pixels gives the same ids."""
    frames = moving_frames(8)
    with VideoMemory.open(tmp_path / "data", model=model) as memory:
        backend = Backend(model=model, store=memory.store)
        encode(backend, {"s": frames}, settings(tau=2.0, window_blocks=64), chunk=3)
        answer = memory.ask("s", QUESTION, options=AskOptions(max_new_tokens=12)).result
    inputs = native_inputs(model, frames, asked(model).ids)
    with torch.no_grad():
        out = model._loaded.model.generate(**inputs, max_new_tokens=12, do_sample=False)
    wanted = out[0, inputs["input_ids"].shape[1] :].tolist()
    assert answer.text == model._loaded.tokenizer.decode(wanted, skip_special_tokens=True)
    assert answer.usage.generated_tokens == len(wanted)
    assert len(set(wanted)) > 2, "an answer that repeats itself shows little"


def test_ids_equal_the_unmodified_models_without_a_video(model: VideoModel) -> None:
    suffix = asked(model)
    found = ids_of(model, greedy(model, 10))
    if model.num_after_video:
        pytest.skip("has an input after the video that is no id")
    ids = torch.tensor([[*model.prompt.prefix_ids, *suffix.ids]])
    with torch.no_grad():
        out = model._loaded.model.generate(input_ids=ids, max_new_tokens=10, do_sample=False)
    assert found == out[0, ids.shape[1] :].tolist()


def test_state_other_calls_leave_in_the_model_changes_nothing(model: VideoModel) -> None:
    """Qwen models remember an offset of positions from call to call."""
    wanted = ids_of(model, greedy(model, 8))
    core = model._loaded.model.model
    if hasattr(core, "rope_deltas"):
        core.rope_deltas = torch.tensor([[777]])
    assert ids_of(model, greedy(model, 8)) == wanted


def test_answers_at_the_same_time_do_not_mix(model: VideoModel) -> None:
    suffixes = [model.prompt.suffix([Turn(question=question)]) for question in ("who?", "what is on the table?", "why")]
    wanted = ["".join(greedy(model, 20, suffix)) for suffix in suffixes]
    running = [iter(greedy(model, 20, suffix)) for suffix in suffixes]
    texts = [""] * len(running)
    for _ in range(21):
        for place, pieces in enumerate(running):
            texts[place] += next(pieces, "")
    assert texts == wanted


@pytest.mark.parametrize("limit", [1, 5])
def test_max_new_tokens_is_kept(model: VideoModel, limit: int) -> None:
    generation = greedy(model, limit)
    text = "".join(generation)
    assert generation.num_tokens <= limit
    ids = ids_of(model, greedy(model, limit))
    assert generation.num_tokens == len(ids)
    assert text == model._loaded.tokenizer.decode(ids, skip_special_tokens=True)


def test_letting_go_of_an_answer_stops_the_model(model: VideoModel) -> None:
    generation = greedy(model, 1500)
    pieces = iter(generation)
    next(pieces)
    assert is_generating()
    pieces.close()
    assert has_stopped()
    made = generation.num_tokens + generation._sink._queue.qsize()
    assert made < 1500, "ids nobody will read"


def test_nothing_runs_before_it_is_read() -> None:
    def run(sink: TokenSink) -> None:
        raise AssertionError("nobody asked")

    iter(Generation(TOKENIZER, run)).close()


def test_overflowing_context_is_an_error_where_the_answer_is_read(model: VideoModel) -> None:
    room = model.num_after_video + len(asked(model).ids) + 2
    generation = greedy(model, 10, room=room)
    if len(ids_of(model, greedy(model, 10))) < 4:
        pytest.skip("the answer ends before the context does")
    with pytest.raises(ValueError, match="cannot hold"):
        list(generation)
    assert has_stopped()


def test_failure_reaches_the_reader_after_what_was_said() -> None:
    def run(sink: TokenSink) -> None:
        for token in TOKENIZER("so far")["input_ids"]:
            sink.put(token)
        sink.fail(MemoryError("no more"))

    pieces, said = iter(Generation(TOKENIZER, run)), ""
    with pytest.raises(MemoryError, match="no more"):
        for piece in pieces:
            said += piece
    assert said == "so far"


def test_an_answer_is_read_once() -> None:
    generation = Generation(TOKENIZER, speaking(TOKENIZER("yes")["input_ids"]))
    assert "".join(generation) == "yes"
    with pytest.raises(RuntimeError, match="once"):
        list(generation)


@given(st.text(max_size=12))
def test_pieces_are_whole_characters_and_add_up(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    generation = Generation(TOKENIZER, speaking(ids))
    pieces = list(generation)
    assert "".join(pieces) == text and "" not in pieces
    assert generation.num_tokens == len(ids)
    if INCOMPLETE not in text:
        assert not any(INCOMPLETE in piece for piece in pieces)
        assert len(pieces) == len(text), "a character is given as soon as it is whole"


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=30))
def test_pieces_of_any_ids_add_up_to_their_text(ids: list[int]) -> None:
    """Half characters, invalid bytes and control tokens included."""
    pieces = list(Generation(TOKENIZER, speaking(ids)))
    assert "".join(pieces) == TOKENIZER.decode(ids, skip_special_tokens=True)
