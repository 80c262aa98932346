"""Eight answers generated together against one after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread

import torch

from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.measure import interleaved, medians
from cacheflow_ray.bench.results import Part, Roofline
from cacheflow_ray.models import Turn, VideoModel
from cacheflow_ray.models.context import Context

NUM_ANSWERS = 8

#: Blocks of memory each is generated from.
BLOCKS = 4

NEW_TOKENS = 16
QUESTION = "What lies on the table?"


def measure_answers(bench: Bench) -> Part:
    """`answers8_over_sequential`: tokens generated per second, eight answers at the same time / one after another."""
    bench.note(f"generating {NUM_ANSWERS} answers together and one by one")
    model = bench.model
    suffix = model.prompt.suffix([Turn(question=QUESTION)])
    contexts = [_memory(model, seed, len(suffix.ids)) for seed in range(NUM_ANSWERS)]
    start, counts = contexts[0].length, [0] * NUM_ANSWERS

    def answer(number: int) -> None:
        contexts[number].length = start
        generation = model.generate(contexts[number], suffix, start, NEW_TOKENS)
        for _ in generation:
            pass
        counts[number] = generation.num_tokens

    runs = {"together": partial(_together, answer), "one_by_one": partial(_one_by_one, answer)}
    seconds = medians(interleaved(runs, bench.sizes.ragged_repeats, bench.device))
    tokens, memory = sum(counts), sum(context.keys[:, :, :start].nbytes * 2 for context in contexts)
    return Part(
        ratios={"answers8_over_sequential": seconds["one_by_one"] / seconds["together"]},
        rooflines={
            "answers8_over_sequential": Roofline(
                what=f"{max(counts)} steps: the language model's weights once, every answer's memory once",
                num_bytes=float(max(counts) * (model.step_bytes + memory)),
                num_flops=0.0,
                seconds=seconds["together"],
            )
        },
        details={
            "tokens_per_s_together": tokens / seconds["together"],
            "tokens_per_s_one_by_one": tokens / seconds["one_by_one"],
            "context_tokens": start,
        },
    )


def _memory(model: VideoModel, seed: int, num_words: int) -> Context:
    """A context filled with random memory, with room for question and answer."""
    encoder, length = model.encoder, BLOCKS * model.default_block_size
    context = model.context(model.prefix.length + length + model.num_after_video + num_words + NEW_TOKENS)
    shape = (encoder.num_layers, 2, encoder.num_kv_heads, length, encoder.head_dim)
    kv = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(model.device, model.dtype)
    context.append(kv, torch.arange(context.length, context.length + length)[None])
    return context


def _together(answer: Callable[[int], None]) -> None:
    threads = [Thread(target=answer, args=(number,)) for number in range(NUM_ANSWERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _one_by_one(answer: Callable[[int], None]) -> None:
    for number in range(NUM_ANSWERS):
        answer(number)
