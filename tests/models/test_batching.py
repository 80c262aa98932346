"""Questions answered at the same time share the model's steps, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from cacheflow_ray.models import Suffix, Turn, VideoModel
from cacheflow_ray.models.context import Context
from cacheflow_ray.models.decoder import Decoder, Reading
from cacheflow_ray.models.generation import Generation
from tests.oracles import FAMILIES, context_logits, distance, toy_model

QUESTIONS = ("who?", "what is on the table, and what was there before?", "why", "when did it fall", "is it red?")
#: Tokens of video before each.
LENGTHS = (3, 0, 41, 17, 8)
NEW_TOKENS = 16


class Steps:
    """A decoder that notes how many questions each of its calls is for; its first waits until all have joined."""

    def __init__(self, decoder: Decoder) -> None:
        self._read = decoder.read
        self.sizes: list[int] = []
        self.have_joined = threading.Event()

    def __call__(self, readings: Sequence[Reading]) -> Tensor:
        assert self.have_joined.wait(60)
        self.sizes.append(len(readings))
        return self._read(readings)


def suffix_of(model: VideoModel, number: int) -> Suffix:
    return model.prompt.suffix([Turn(question=QUESTIONS[number])])


def memory(model: VideoModel, number: int, room: int) -> tuple[Context, int]:
    """A context of random tokens with so many columns left, and the position behind them."""
    encoder, rng, length = model.encoder, torch.Generator().manual_seed(number), LENGTHS[number]
    context = model.context(model.prefix.length + length + room)
    kv = torch.randn((encoder.num_layers, 2, encoder.num_kv_heads, length, encoder.head_dim), generator=rng)
    start = context.length + length
    context.append(kv.to(model.dtype), torch.arange(context.length, start)[None])
    return context, start


def asked(model: VideoModel, number: int, *, room: int | None = None, new_tokens: int = NEW_TOKENS) -> Generation:
    """`room`: columns for question and answer."""
    suffix = suffix_of(model, number)
    needed = model.num_after_video + len(suffix.ids) + new_tokens
    context, start = memory(model, number, needed if room is None else room)
    return model.generate(context, suffix, start, new_tokens)


def all_at_once(model: VideoModel, generations: Sequence[Generation]) -> tuple[list[str | Exception], list[int]]:
    """Text (or what ended it) of each, and how many questions each step was for."""
    joined = threading.Semaphore(0)
    join, steps = model.batcher.join, Steps(model._decoder)

    def joining(answer: object) -> None:
        join(answer)  # type: ignore[arg-type]
        joined.release()

    def read(generation: Generation) -> str | Exception:
        try:
            return "".join(generation)
        except Exception as error:
            return error

    with (
        patch.object(model.batcher, "join", joining),
        patch.object(model._decoder, "read", steps),
        ThreadPoolExecutor(len(generations)) as pool,
    ):
        texts = pool.map(read, generations)
        for _ in generations:
            assert joined.acquire(timeout=60)
        steps.have_joined.set()
        return list(texts), steps.sizes


def test_answers_are_those_of_questions_asked_alone(model: VideoModel) -> None:
    alone = [asked(model, number) for number in range(len(QUESTIONS))]
    wanted = ["".join(generation) for generation in alone]
    texts, sizes = all_at_once(model, [asked(model, number) for number in range(len(QUESTIONS))])
    assert texts == wanted and len(set(wanted)) > 1
    lengths = [generation.num_tokens for generation in alone]
    assert sum(sizes) == sum(lengths), "a step for each question's each token"
    assert len(sizes) <= max(lengths) + 1, "shared by all that join: the first may be for one alone"


def test_logits_do_not_depend_on_company(model: VideoModel) -> None:
    """Words of some questions beside single tokens of others."""

    def reading(number: int) -> Reading:
        context, start = memory(model, number, 100)
        inputs = model._after_video(suffix_of(model, number))
        return Reading(context=context, inputs=inputs if number % 2 else inputs[:1], position=start)

    numbers = range(len(QUESTIONS))
    alone = torch.cat([model._decoder.read([reading(number)]) for number in numbers])
    assert distance(model._decoder.read([reading(number) for number in numbers]), alone) < 1e-5


def test_logits_are_those_of_the_unmodified_model(model: VideoModel) -> None:
    for number in range(len(QUESTIONS)):
        suffix = suffix_of(model, number)
        context, start = memory(model, number, 100)
        wanted = context_logits(model, context, suffix.ids, start)[-1]
        assert distance(model.next_logits(context, suffix, start), wanted) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_stays_near_the_unmodified_models(family: str) -> None:
    """Angles and rotation are float32 here, as for stored keys, and half precision there."""
    model = toy_model(family, "bfloat16")
    context, start = memory(model, 2, 100)
    wanted = context_logits(model, context, suffix_of(model, 2).ids, start)[-1].float()
    assert (model.next_logits(context, suffix_of(model, 2), start) - wanted).norm() < 0.03 * wanted.norm()


def test_a_question_that_fails_fails_alone(model: VideoModel) -> None:
    wanted = ["".join(asked(model, number)) for number in range(len(QUESTIONS))]
    generations = [asked(model, number) for number in range(len(QUESTIONS))]
    words = model.num_after_video + len(suffix_of(model, 2).ids)
    generations[2] = asked(model, 2, room=words)  # its answer has no room
    texts, _ = all_at_once(model, generations)
    assert isinstance(texts[2], ValueError) and "cannot hold" in str(texts[2])
    assert texts[:2] + texts[3:] == wanted[:2] + wanted[3:]


def test_a_reader_who_goes_takes_nothing_from_the_others(model: VideoModel) -> None:
    wanted = "".join(asked(model, 0))
    leaving, staying = iter(asked(model, 1, new_tokens=1000)), asked(model, 0)
    next(leaving)
    pieces = iter(staying)
    text = next(pieces, "")
    leaving.close()
    assert text + "".join(pieces) == wanted


_LEAVING = """
import torch
from cacheflow_ray.models import Turn, load_model

model = load_model("random:tiny-llava-onevision")
suffix = model.prompt.suffix([Turn(question="why?")])
context, read = model.context(model.prefix.length + 3000), model._decoder.read

def slow(readings):
    x = torch.ones(1500, 1500)
    for _ in range(20):
        x = x @ x / 1500
    return read(readings)

model._decoder.read = slow
pieces = iter(model.generate(context, suffix, model.prefix.length, 2500))
next(pieces)
"""


@pytest.mark.parametrize("last", ["", "pieces.close()"], ids=["unread", "let go"])
def test_a_process_may_end_in_the_middle_of_a_step(last: str) -> None:
    """A thread that the interpreter's end cut off within torch would abort the process."""
    ended = subprocess.run([sys.executable, "-c", _LEAVING + last], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_generation_settings_of_a_model_are_kept(penalty: float) -> None:
    """As `generate()` of the unmodified model keeps them, on the same cache."""
    model = toy_model("tiny-qwen2-vl")
    hf, suffix = model._loaded.model, suffix_of(model, 0)
    hf.generation_config.repetition_penalty = penalty
    context = model.context(model.prefix.length + len(suffix.ids) + NEW_TOKENS)
    ids = torch.tensor([suffix.ids])
    start = model.prefix.length
    wanted = hf.generate(
        input_ids=ids, past_key_values=context.as_cache(), max_new_tokens=NEW_TOKENS, do_sample=False,
        attention_mask=torch.ones((1, start + ids.shape[1]), dtype=torch.long),
        position_ids=torch.arange(start, start + ids.shape[1]).expand(3, 1, -1),
    )[0, ids.shape[1] :]  # fmt: skip
    generation = model.generate(context, suffix, start, NEW_TOKENS)
    assert "".join(generation) == model._loaded.tokenizer.decode(wanted, skip_special_tokens=True)
    assert generation.num_tokens == len(wanted)
