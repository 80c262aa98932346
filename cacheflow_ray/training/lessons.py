"""Lessons: clips with questions, as batches of ids, targets and the tokens that answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cacheflow_ray.models import Turn
from cacheflow_ray.models.prompt import Prompt
from cacheflow_ray.training.bank import StreamTokens
from cacheflow_ray.training.clips import KIND_WEIGHTS, Asked, Clip, make_clip
from cacheflow_ray.training.forward import Batch

IGNORED = -100

#: Events one question can need.
_MOST_EVENTS = 4

#: Share of lessons with follow-up questions, and of their questions; apart, for they make all of a lesson's longer.
_CONVERSATIONS, _FOLLOW_UPS = 0.2, 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of batch.

    Args:
        clips: n; blocks: N; context: S, N for all of them; questions: Q; block_size: B; window: W.
    """

    clips: int
    blocks: int
    context: int
    questions: int
    block_size: int = 16
    window: int = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """A batch with what its answers should be.

    Args:
        targets: [n, Q, T] the id each position should give next, IGNORED where it does not matter.
        answer_at: [n, Q] position that gives the answer of the last turn.
        own: [n, Q, T] the last question's own words.
        needed: [n, Q, 4, N * B] tokens of each event the question needs.
        aim: the same, of what the answer hangs on: of two events that are to be ordered the first, of events that are
            to be counted where each begins.
        kinds: [n][Q].
    """

    batch: Batch
    targets: Tensor
    answer_at: Tensor
    own: Tensor
    needed: Tensor
    aim: Tensor
    kinds: list[list[str]]

    def to(self, device: torch.device) -> Lesson:
        """The same, there."""
        moved = {name: getattr(self, name).to(device) for name in ("targets", "answer_at", "own", "needed", "aim")}
        batch = {name: getattr(self.batch, name).to(device) for name in ("video", "context", "ids")}
        return replace(self, batch=replace(self.batch, **batch), **moved)


class Lessons:
    """Makes lessons from a bank.

    Args:
        prompt, tokenizer: of the model.
    """

    def __init__(self, bank: Sequence[StreamTokens], prompt: Prompt, tokenizer: Any) -> None:
        self._bank, self._prompt = bank, prompt
        self._id = {word: int(number) for word, number in tokenizer.get_vocab().items()}
        self._end = int(tokenizer.eos_token_id)

    def make(self, rng: np.random.Generator, shape: Shape, kind_weights: Mapping[str, float] = KIND_WEIGHTS) -> Lesson:
        """A lesson of that shape."""
        clips: list[Clip] = []
        contexts: list[np.ndarray] = []
        chosen: list[list[Asked]] = []
        follow_ups = _FOLLOW_UPS if rng.random() < _CONVERSATIONS else 0.0
        whole = shape.context >= shape.blocks
        num_tokens = shape.blocks * shape.block_size
        num_seen = num_tokens - (int(rng.integers(0, shape.block_size)) if whole and shape.blocks > 1 else 0)
        while len(clips) < shape.clips:
            clip = make_clip(
                self._bank,
                rng,
                num_tokens,
                shape.questions,
                num_seen=num_seen,
                follow_ups=follow_ups,
                kind_weights=kind_weights,
            )
            if clip.asked:
                blocks, asked = self._context(clip, shape, rng)
                clips.append(clip)
                contexts.append(blocks)
                chosen.append([asked[i % len(asked)] for i in range(shape.questions)])
        seen = num_seen if whole else shape.context * shape.block_size
        return self._lesson(clips, chosen, self._batch(clips, np.stack(contexts), seen, shape))

    def _context(self, clip: Clip, shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, list[Asked]]:
        """Blocks that hold what the questions need, filled up at random; and the questions they are enough for."""
        if shape.context >= shape.blocks:
            return np.arange(shape.blocks), list(clip.asked)
        needed: set[int] = set()
        asked = []
        for question in clip.asked:
            more = needed | clip.blocks_of(question, shape.block_size)
            if len(more) <= shape.context:
                needed = more
                asked.append(question)
        rest = [block for block in range(shape.blocks) if block not in needed]
        filled = [*needed, *rng.permutation(rest)[: shape.context - len(needed)].tolist()]
        return np.sort(np.asarray(filled, np.int64)), asked or [clip.asked[0]]

    def _batch(self, clips: list[Clip], contexts: np.ndarray, seen: int, shape: Shape) -> Batch:
        """Without questions."""
        return Batch(
            video=torch.from_numpy(np.stack([clip.features for clip in clips])).float(),
            context=torch.from_numpy(contexts),
            context_tokens=seen,
            ids=torch.empty(0, dtype=torch.long),
            block_size=shape.block_size,
            window_blocks=shape.window,
        )

    def _lesson(self, clips: list[Clip], chosen: list[list[Asked]], batch: Batch) -> Lesson:
        written = [[self._written(asked) for asked in row] for row in chosen]
        longest = max(len(item.ids) for row in written for item in row)
        ids = _padded([[item.ids for item in row] for row in written], longest, self._end)
        needed = _needed(clips, chosen) & batch.visible[:, None, None]
        kinds = [[asked.kind for asked in row] for row in chosen]
        return Lesson(
            batch=replace(batch, ids=ids),
            targets=_padded([[item.targets for item in row] for row in written], longest, IGNORED),
            answer_at=torch.tensor([[item.answer_at for item in row] for row in written]),
            own=_padded([[item.own for item in row] for row in written], longest, 0).bool(),
            needed=needed,
            aim=_aim(needed, kinds),
            kinds=kinds,
        )

    def _written(self, asked: Asked) -> _Written:
        turns = [Turn(question=question, answer=answer) for question, answer in asked.turns]
        open_turn = Turn(question=turns[-1].question)
        suffix = self._prompt.suffix([*turns[:-1], open_turn])
        ids, own = list(suffix.ids), list(suffix.question)
        targets = [IGNORED] * len(ids)
        for count in range(1, len(turns)):
            before = len(self._prompt.suffix([*turns[: count - 1], Turn(question=turns[count - 1].question)]).ids)
            targets[before - 1] = self._id[str(turns[count - 1].answer)]
        answer = self._id[str(turns[-1].answer)]
        targets[-1] = answer
        return _Written(ids=[*ids, answer], targets=[*targets, self._end], own=[*own, False], answer_at=len(ids) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    ids: list[int]
    targets: list[int]
    own: list[bool]
    answer_at: int


def _needed(clips: list[Clip], chosen: list[list[Asked]]) -> Tensor:
    """[n, Q, 4, N * B] tokens of each event."""
    needed = np.zeros((len(clips), len(chosen[0]), _MOST_EVENTS, len(clips[0].shows)), bool)
    for row, clip in enumerate(clips):
        for place, asked in enumerate(chosen[row]):
            for number, event in enumerate(asked.events):
                needed[row, place, number] = clip.shows == event
    return torch.from_numpy(needed)


def _aim(needed: Tensor, kinds: list[list[str]]) -> Tensor:
    """[n, Q, 4, N * B], from the same."""
    begins = needed & (needed.cumsum(-1) == 1)
    first = torch.where(needed.any(-1), begins.int().argmax(-1), needed.shape[-1]).argmin(-1, keepdim=True)
    is_first = (torch.arange(_MOST_EVENTS) == first)[..., None]
    order, count = (torch.tensor([[own == kind for own in row] for row in kinds]) for kind in ("order", "count"))
    aimed = torch.where(order[..., None, None], needed & is_first, needed)
    return torch.where(count[..., None, None], begins, aimed)


def _padded(rows: Sequence[Sequence[Sequence[int]]], length: int, value: int) -> Tensor:
    return torch.tensor([[[*item, *[value] * (length - len(item))] for item in row] for row in rows])
