"""The same question on ten minutes and on ten hours of stored memory, and how soon its first token comes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import torch

from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.measure import count_flops, interleaved, medians
from cacheflow_ray.bench.results import Part, Roofline
from cacheflow_ray.bench.sizes import LONG_S, SHORT_S, Sizes
from cacheflow_ray.bench.synthetic import Memory, block_bytes, fill
from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine import AnswerResult, VideoMemory
from cacheflow_ray.models import Turn, VideoModel
from memory_store import Store
from memory_store.records import JsonValue

QUESTION = "What lies on the table?"
NEW_TOKENS = 4

#: Blocks retrieved where the time to the first token is measured.
FIRST_TOKEN_BLOCKS = 64

_STREAM = "memory"
_FIRST_TOKEN_REPEATS = 3


def measure_questions(bench: Bench) -> Part:
    """`question_wall_10h_over_10min` and `question_bytes_10h_over_10min`, asked in turn; and the first token."""
    sizes = bench.sizes
    counts = {"10min": sizes.num_blocks(SHORT_S), "10h": sizes.num_blocks(LONG_S)}
    bench.need_space(sum(counts.values()) * block_bytes(bench.model))
    folders = {name: bench.subfolder(name) for name in counts}
    try:
        for name, folder in folders.items():
            _fill(bench, folder, counts[name], name)
        part = _compare(bench, folders, counts)
        first_token = _first_token(bench, folders["10h"])
        return Part(ratios=part.ratios, rooflines=part.rooflines, details=dict(part.details) | first_token)
    finally:
        for folder in folders.values():
            shutil.rmtree(folder)


def _fill(bench: Bench, folder: Path, num_blocks: int, name: str) -> None:
    model, sizes = bench.model, bench.sizes
    size_gb = num_blocks * block_bytes(model) / 1e9
    bench.note(f"storing {name}: {num_blocks} blocks, {size_gb:.2f} GB")
    memory = Memory(
        stream=_STREAM, num_blocks=num_blocks, tail_tokens=model.default_block_size // 2,
        fps=sizes.fps, keep=sizes.keep, window_blocks=sizes.window_blocks,
    )  # fmt: skip

    def watch(done: int) -> None:
        if done * 4 // num_blocks > max(0, done - 16) * 4 // num_blocks:
            bench.note(f"  {done} of {num_blocks} blocks")

    with Store.open(folder) as store:
        fill(store, model, memory, watch)


def _compare(bench: Bench, folders: dict[str, Path], counts: dict[str, int]) -> Part:
    sizes = bench.sizes
    options = AskOptions(top_k=sizes.top_k, max_new_tokens=NEW_TOKENS)
    bench.note(f"asking both {sizes.question_repeats + 1} times, K = {sizes.top_k}, W = {sizes.window_blocks}")
    last: dict[str, AnswerResult] = {}
    with ExitStack() as stack:
        memories = {name: stack.enter_context(VideoMemory.open(at, model=bench.model)) for name, at in folders.items()}

        def asking(name: str) -> Callable[[], None]:
            def run() -> None:
                last[name] = memories[name].ask(_STREAM, QUESTION, options=options).result

            return run

        runs = {name: asking(name) for name in memories}
        first_s = {name: _seconds(run) for name, run in runs.items()}  # loads the index of summaries
        times = interleaved(runs, sizes.question_repeats, bench.device)
    seconds = medians(times)
    usage = {name: result.usage for name, result in last.items()}
    details: dict[str, JsonValue] = {
        "blocks": dict(counts),
        "sizing": _sizing(sizes),
        "question_s": dict(seconds),
        "first_question_s": dict(first_s),
        "fetched_bytes": {name: used.fetched_bytes for name, used in usage.items()},
        "context_tokens": {name: used.context_tokens for name, used in usage.items()},
        "stages_ms": {name: dict(result.timings) for name, result in last.items()},
    }
    return Part(
        ratios={
            "question_wall_10h_over_10min": seconds["10h"] / seconds["10min"],
            "question_bytes_10h_over_10min": usage["10h"].fetched_bytes / usage["10min"].fetched_bytes,
        },
        rooflines={"question_wall_10h_over_10min": _roofline(bench.model, last["10h"], seconds["10h"])},
        details=details,
    )


def _sizing(sizes: Sizes) -> str:
    return (
        f"{sizes.fps:g} frames per second, {100 * (1 - sizes.keep):.1f} % dropped, K = {sizes.top_k}, "
        f"W = {sizes.window_blocks}, equal half-full tails"
    )


def _roofline(model: VideoModel, result: AnswerResult, seconds: float) -> Roofline:
    """Blocks read, written and turned; tail, question and answer through the layers and over the context."""
    encoder, usage = model.encoder, result.usage
    suffix = model.prompt.suffix([Turn(question=QUESTION)])
    text_flops, _ = count_flops(lambda: model.queries(suffix))  # prefix and question, no context
    per_token = text_flops / (model.prefix.length + len(suffix.ids))
    new = usage.question_tokens + usage.generated_tokens
    attention = 4 * new * usage.context_tokens * encoder.num_layers * encoder.num_heads * encoder.head_dim
    return Roofline(
        what=f"{usage.retrieved_blocks + usage.window_blocks} blocks fetched and turned, {new} tokens over them",
        num_bytes=3 * usage.fetched_bytes,
        num_flops=text_flops + per_token * (new + usage.tail_tokens) + attention,
        seconds=seconds,
    )


def _first_token(bench: Bench, folder: Path) -> dict[str, JsonValue]:
    """Milliseconds from a question to its first token, blocks in the page cache and on disk."""
    options = AskOptions(top_k=FIRST_TOKEN_BLOCKS, max_new_tokens=1)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    bench.note(f"first token with {FIRST_TOKEN_BLOCKS} blocks, from the page cache and from disk")
    found: dict[str, JsonValue] = {"first_token_blocks": FIRST_TOKEN_BLOCKS}
    for place in ("page_cache", "disk"):
        results = []
        for _ in range(_FIRST_TOKEN_REPEATS):
            if place == "disk" and not _forget_cached(folder):
                break
            results.append(_ask_afresh(bench, folder, options, warm=place == "page_cache"))
        results.sort(key=lambda result: result.timings["total"])
        middle = results[len(results) // 2].timings if results else {}
        found[f"first_token_ms_{place}"] = middle.get("total")
        found[f"first_token_stages_ms_{place}"] = dict(middle)
    if bench.device.type == "cuda":
        found["question_peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated(bench.device) / 1e9
    return found


def _ask_afresh(bench: Bench, folder: Path, options: AskOptions, *, warm: bool) -> AnswerResult:
    """A question to a store just opened, its index loaded; `warm`: it was asked once before."""
    with VideoMemory.open(folder, model=bench.model) as memory:
        memory.search(_STREAM, QUESTION)
        if warm:
            _ = memory.ask(_STREAM, QUESTION, options=options).result
        return memory.ask(_STREAM, QUESTION, options=options).result


def _seconds(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def _forget_cached(folder: Path) -> bool:
    """Drop a closed store's files from the page cache; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.rglob("*.mdb"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
