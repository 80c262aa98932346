"""The ways of answering that are compared: what each one puts before the model.

| method | answers from |
|---|---|
| blind | nothing |
| last-frames | the last 4 frames, whole, seen on their own |
| sliding-window | the last W blocks and the tail |
| uniform | frames spread evenly, whole, as many tokens as `ours` attends to |
| full | everything that was kept, where the model's context holds it |
| oracle | the blocks that hold the answer |
| oracle+random | those, and K blocks at random |
| random | K blocks at random, window and tail |
| rekv | ReKV as published: nothing dropped, frame per block, mean key, raw dot product, K blocks per layer, no window |
| cacheflow-gru | CacheFlow as published: random frozen GRU, raw mean query, lists cut at K, window and tail |
| cacheflow-gru-query | the same, the question sent through the same GRU |
| ours | the product as it is: `VideoMemory`'s own answer |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from cacheflow_ray.config import AskOptions
from cacheflow_ray.core.consensus import merge
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine.answerer import Answerer
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.rehydration import Plan, rehydrate
from cacheflow_ray.eval.needle.answering import MAX_NEW_TOKENS, answer, context_of, room, watched
from cacheflow_ray.eval.needle.ranking import rankings, scores
from cacheflow_ray.eval.needle.rekv import MeanKeys, layered_blocks, layered_context
from cacheflow_ray.eval.needle.streams import Remembered, stored_keys
from cacheflow_ray.models import Suffix, Turn
from cacheflow_ray.world import Question, frames

#: Frames the `last-frames` row sees.
LAST_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One answer.

    Args:
        text: as the model gave it.
        tokens: video tokens attended to.
        found: of each event the question needs, whether a block that shows it was attended to; None where a method
            does not attend to stored blocks.
    """

    text: str
    tokens: int
    found: tuple[bool, ...] | None


@dataclass(slots=True, eq=False)
class Case:
    """A stream with what several questions about it share.

    Args:
        thinned: the stream as the product keeps it.
        whole: the same with nothing dropped, a frame per block; None where no method needs it.
        window_blocks: W'.
    """

    backend: Backend
    thinned: Remembered
    whole: Remembered | None
    options: AskOptions
    window_blocks: int
    means: MeanKeys | None = None
    _vectors: dict[str, torch.Tensor] = field(default_factory=dict)
    _watched: dict[tuple[int, ...], list[torch.Tensor]] = field(default_factory=dict)

    def suffix(self, question: Question) -> Suffix:
        return self.backend.model.prompt.suffix([Turn(question=question.text)])

    def rng(self, question: Question) -> np.random.Generator:
        return np.random.default_rng((self.thinned.script.seed, self.thinned.questions.index(question), 81))

    def vectors(self, summary: str) -> torch.Tensor:
        """[N, S, V, H, D] of all full blocks."""
        if summary not in self._vectors:
            model = self.backend.model
            keys = stored_keys(self.backend, self.thinned, model.summary_layers)
            self._vectors[summary] = make_summary(summary, model.encoder.head_dim).summarise(keys)
        return self._vectors[summary]

    def watched(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """KV of a few whole frames seen on their own."""
        key = tuple(indices)
        if key not in self._watched:
            shown = [next(frames(self.thinned.script, start=index, stop=index + 1)) for index in key]
            self._watched[key] = watched(self.backend.model, shown)
        return self._watched[key]

    @property
    def window(self) -> range:
        """The local window's blocks."""
        count = self.thinned.num_blocks
        return range(max(0, count - self.window_blocks), count)


Method = Callable[[Case, Question, int], Given | None]


def _from_blocks(case: Case, question: Question, blocks: Iterable[int], *, window: range, with_tail: bool) -> Given:
    """Answer from stored blocks by the product's own rehydration."""
    stream, suffix = case.thinned, case.suffix(question)
    chosen = sorted({*blocks} - {*window})
    plan = Plan(
        blocks=(*chosen, *window), num_window=len(window), with_tail=with_tail, room=room(case.backend.model, suffix)
    )
    ready = rehydrate(case.backend, stream.opened, plan)
    seen = {*plan.blocks, *([stream.num_blocks] if with_tail else [])}
    tokens = ready.context.length - case.backend.model.prefix.length
    text = answer(case.backend.model, ready.context, suffix, ready.text_start)
    return Given(text=text, tokens=tokens, found=_found(stream, question, seen))


def _found(stream: Remembered, question: Question, seen: set[int]) -> tuple[bool, ...]:
    return tuple(bool(stream.blocks_of(event) & seen) for event in question.events)


def _blind(case: Case, question: Question, top_k: int) -> Given:
    return _from_frames(case, question, ())


def _last_frames(case: Case, question: Question, top_k: int) -> Given:
    count = case.thinned.script.num_frames
    return _from_frames(case, question, range(max(0, count - LAST_FRAMES), count))


def _uniform(case: Case, question: Question, top_k: int) -> Given:
    stream = case.thinned
    budget = (top_k + len(case.window)) * stream.block_size + len(stream.opened.state.tail)
    per_frame = stream.opened.state.grid[0] * stream.opened.state.grid[1]
    wanted = min(max(budget // per_frame, 1), stream.script.num_frames)
    places = (np.arange(wanted) + 0.5) * stream.script.num_frames / wanted
    return _from_frames(case, question, places.astype(int).tolist())


def _from_frames(case: Case, question: Question, indices: Sequence[int]) -> Given:
    model, suffix = case.backend.model, case.suffix(question)
    context, start = context_of(model, case.watched(indices) if indices else [], suffix)
    tokens = context.length - model.prefix.length
    return Given(text=answer(model, context, suffix, start), tokens=tokens, found=None)


def _sliding_window(case: Case, question: Question, top_k: int) -> Given:
    return _from_blocks(case, question, (), window=case.window, with_tail=True)


def _full(case: Case, question: Question, top_k: int) -> Given | None:
    stream, model = case.thinned, case.backend.model
    needed = model.prefix.length + len(stream.tokens) + room(model, case.suffix(question))
    if needed > model.max_context:
        return None
    return _from_blocks(case, question, range(stream.num_blocks), window=case.window, with_tail=True)


def _needed(case: Case, question: Question) -> set[int]:
    return set().union(*(case.thinned.blocks_of(event) for event in question.events))


def _oracle(case: Case, question: Question, top_k: int) -> Given:
    return _oracle_and(case, question, 0)


def _oracle_and_random(case: Case, question: Question, top_k: int) -> Given:
    return _oracle_and(case, question, top_k)


def _oracle_and(case: Case, question: Question, more: int) -> Given:
    """Where nothing is needed (the answer is no) two blocks at random stand for it."""
    needed, tail = _needed(case, question), case.thinned.num_blocks
    chosen = {*needed, *_random_blocks(case, question, more if needed else more + 2)}
    return _from_blocks(case, question, chosen - {tail}, window=range(0), with_tail=tail in needed or not tail)


def _random_blocks(case: Case, question: Question, count: int) -> list[int]:
    chosen: list[int] = case.rng(question).permutation(case.thinned.num_blocks)[:count].tolist()
    return chosen


def _random(case: Case, question: Question, top_k: int) -> Given:
    chosen = [block for block in _random_blocks(case, question, case.thinned.num_blocks) if block not in case.window]
    return _from_blocks(case, question, chosen[:top_k], window=case.window, with_tail=True)


def _published(summary: str) -> Method:
    def method(case: Case, question: Question, top_k: int) -> Given:
        model = case.backend.model
        query = make_summary(summary, model.encoder.head_dim).query(model.queries(case.suffix(question)).cpu())
        by_layer = scores(case.vectors(summary), query)
        first, last = rankings(by_layer, range(0, case.window.start), top_k)
        hits = merge(first, last, top_k, "consensus", published_cut=True)
        return _from_blocks(case, question, [hit.block_idx for hit in hits], window=case.window, with_tail=True)

    return method


def _rekv(case: Case, question: Question, top_k: int) -> Given | None:
    if case.whole is None:
        return None
    suffix = case.suffix(question)
    case.means = case.means or MeanKeys(case.backend, case.whole)
    chosen = layered_blocks(case.backend, case.whole, suffix, top_k, case.means)
    context = layered_context(case.backend, case.whole, chosen, room(case.backend.model, suffix))
    seen = set().union(*chosen)
    tokens = context.length - case.backend.model.prefix.length
    text = answer(case.backend.model, context, suffix, context.length)
    return Given(text=text, tokens=tokens, found=_found(case.whole, question, seen))


def _ours(case: Case, question: Question, top_k: int) -> Given:
    options = case.options.model_copy(update={"top_k": top_k, "max_new_tokens": MAX_NEW_TOKENS})
    answerer = Answerer(case.backend)
    prepared = answerer.prepare(case.thinned.opened.stream_id, [Turn(question=question.text)], options)
    seen = {block for stretch in prepared.evidence for block in stretch.block_idxs}
    if prepared.usage.tail_tokens:
        seen.add(case.thinned.num_blocks)
    tokens = prepared.usage.context_tokens - case.backend.model.prefix.length
    text = "".join(prepared.generation).strip()
    return Given(text=text, tokens=tokens, found=_found(case.thinned, question, seen))


METHODS: dict[str, Method] = {
    "blind": _blind,
    "last-frames": _last_frames,
    "sliding-window": _sliding_window,
    "uniform": _uniform,
    "full": _full,
    "oracle": _oracle,
    "oracle+random": _oracle_and_random,
    "random": _random,
    "rekv": _rekv,
    "cacheflow-gru": _published("gru"),
    "cacheflow-gru-query": _published("gru_query"),
    "ours": _ours,
}
