"""The language model, trained to answer from the tokens a frozen tower gives: clips that grow from a few events to the
longest context, questions over all of a clip or over chosen blocks of it.

Beside the answers' cross-entropy there are two losses that teach it to be searched, and that the second checkpoint does
without: the mean query of the question alone must find the keys of the tokens it needs at the first and last layer
(InfoNCE), and the token that answers must attend to them in the middle, and above that to what the answer hangs on: of
two events the first, of several where each begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cacheflow_ray.models.family import Loaded
from cacheflow_ray.models.prompt import Prompt
from cacheflow_ray.training.bank import StreamTokens
from cacheflow_ray.training.clips import KIND_WEIGHTS
from cacheflow_ray.training.forward import Reader, Traced
from cacheflow_ray.training.lessons import IGNORED, Lesson, Lessons, Shape
from cacheflow_ray.training.loop import Note, Schedule, train

#: Cosines are this much sharper in the loss on keys.
_KEY_SCALE = 20.0

_END_WEIGHT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the training.

    Args:
        share: of the steps.
        shapes: every step takes one of them at random.
        kind_weights: how often each kind of question is asked, relative to the others.
    """

    share: float
    shapes: tuple[Shape, ...]
    kind_weights: Mapping[str, float] = field(default_factory=lambda: KIND_WEIGHTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderPlan:
    """How a language model is trained.

    Args:
        schedule: steps and rates.
        curriculum: stages in order.
        key_weight, mass_weight: of the losses on keys and on attention; 0 leaves them out.
        seed: of clips.
    """

    schedule: Schedule
    curriculum: tuple[Stage, ...]
    key_weight: float
    mass_weight: float
    seed: int

    def stage_at(self, step: int) -> Stage:
        """The stage a step belongs to."""
        at, until = step / self.schedule.steps, 0.0
        for stage in self.curriculum:
            until += stage.share
            if at < until:
                break
        return stage

    def shape_at(self, step: int) -> Shape:
        """The shape of a step's batch."""
        shapes = self.stage_at(step).shapes
        return shapes[int(np.random.default_rng((self.seed, 71, step)).integers(len(shapes)))]


def train_reader(
    loaded: Loaded, prompt: Prompt, bank: Sequence[StreamTokens], held_out: Sequence[StreamTokens], plan: ReaderPlan,
    folder: Path, note: Note,
) -> None:  # fmt: skip
    """Train the language model of `loaded` in place (vision tower and projector stay as they are)."""
    model = loaded.model.train()
    for part in (model.model.vision_tower, model.model.multi_modal_projector):
        part.requires_grad_(False)
    reader = Reader(model, prompt.prefix_ids)
    lessons = Lessons(bank, prompt, loaded.tokenizer)
    exams = Lessons(held_out, prompt, loaded.tokenizer)

    def loss_of(step: int) -> Mapping[str, Tensor]:
        rng, weights = np.random.default_rng((plan.seed, 72, step)), plan.stage_at(step).kind_weights
        lesson = lessons.make(rng, plan.shape_at(step), weights)
        with torch.autocast(reader.device.type, dtype=torch.bfloat16):
            return losses(reader, lesson.to(reader.device), plan)

    exam = plan.curriculum[-1].shapes[0]

    def evaluate() -> Mapping[str, float]:
        return examine(reader, exams, exam)

    train(_Trained(model), loss_of, plan.schedule, folder, evaluate=evaluate, note=note)
    model.eval()


class _Trained(torch.nn.Module):
    """What is trained and saved: everything but vision."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text = model.model.language_model
        self.newline = model.model.image_newline


def losses(reader: Reader, lesson: Lesson, plan: ReaderPlan) -> dict[str, Tensor]:
    """The total first, then its parts."""
    last = reader.num_layers - 1
    middle = (last // 2, last // 2 + 1)
    teach = plan.key_weight > 0 or plan.mass_weight > 0
    hidden, traced = reader(lesson.batch, trace=(0, *middle, last) if teach else ())
    parts = {"answer": _answer_loss(reader, hidden, lesson)}
    total = parts["answer"]
    if teach:
        queries = reader.queries(lesson.batch.ids, (0, last))
        parts["keys"] = torch.stack([_key_loss(queries[at], traced.keys[at], lesson) for at in (0, last)]).mean()
        aims = zip(middle, (lesson.needed, lesson.aim), strict=True)
        parts["mass"] = torch.stack([_mass_loss(traced, layer, lesson, aim) for layer, aim in aims]).mean()
        total = total + plan.key_weight * parts["keys"] + plan.mass_weight * parts["mass"]
    return {"loss": total, **parts}


def _answer_loss(reader: Reader, hidden: Tensor, lesson: Lesson) -> Tensor:
    asked = lesson.targets != IGNORED
    targets = lesson.targets[asked]
    each = F.cross_entropy(reader.logits(hidden[asked]).float(), targets, reduction="none")
    places = torch.arange(lesson.targets.shape[2], device=asked.device).expand_as(lesson.targets)[asked]
    ends = places > lesson.answer_at[..., None].expand_as(lesson.targets)[asked]
    weight = torch.where(ends, _END_WEIGHT, 1.0)
    return (each * weight).sum() / weight.sum()


def _key_loss(queries: Tensor, keys: Tensor, lesson: Lesson) -> Tensor:
    """InfoNCE: each needed event against every token that no needed event of the question shows."""
    queries, keys = queries.float(), keys.float()
    own = lesson.own[:, None, :, :, None]
    mean = (queries * own).sum(3) / own.sum(3).clamp(min=1)  # [n, Hq, Q, D]
    grouped = mean.unflatten(1, (keys.shape[1], -1)).mean(2)  # [n, H, Q, D]
    cosine = torch.einsum("nhqd,nhtd->nqt", F.normalize(grouped, dim=-1), F.normalize(keys, dim=-1)) / keys.shape[1]
    return _found(_KEY_SCALE * cosine, lesson.needed)


def _mass_loss(traced: Traced, layer: int, lesson: Lesson, aim: Tensor) -> Tensor:
    """The same of `aim` for attention of the token that answers, by its best head, to prefix and context."""
    queries, keys = traced.mass_queries[layer].float(), traced.mass_keys[layer].float()
    at = lesson.answer_at[:, None, :, None, None].expand(-1, queries.shape[1], -1, -1, queries.shape[-1])
    asking = queries.gather(3, at)[:, :, :, 0].unflatten(1, (keys.shape[1], -1))  # [n, H, G, Q, D]
    logits = torch.einsum("nhgqd,nhtd->nhgqt", asking, keys).flatten(1, 2) / keys.shape[-1] ** 0.5
    prefix = keys.shape[2] - aim.shape[-1]
    logits = logits.masked_fill(~F.pad(lesson.batch.visible, (prefix, 0), value=True)[:, None, None], -torch.inf)
    needed = F.pad(aim, (prefix, 0))
    per_head = torch.stack([_missed(head, needed) for head in logits.unbind(1)])
    weight = needed.any(-1)
    return (per_head.amin(0) * weight).sum() / weight.sum().clamp(min=1)


def _found(logits: Tensor, needed: Tensor) -> Tensor:
    """Mean over needed events of -log(share of the event among itself and all that is not needed)."""
    missed, weight = _missed(logits, needed), needed.any(-1)
    return (missed * weight).sum() / weight.sum().clamp(min=1)


def _missed(logits: Tensor, needed: Tensor) -> Tensor:
    """[n, Q, T] and [n, Q, 4, T] -> [n, Q, 4]."""
    others = logits.masked_fill(needed.any(2), -torch.inf).logsumexp(-1)[:, :, None]
    own = logits[:, :, None].masked_fill(~needed, -1e4).logsumexp(-1)
    return torch.logaddexp(own, others) - own


@torch.no_grad()
def examine(reader: Reader, exams: Lessons, shape: Shape, rounds: int = 6) -> dict[str, float]:
    """Share of right answers, per kind, on clips of streams that are never trained on."""
    right: dict[str, list[bool]] = {}
    for number in range(rounds):
        lesson = exams.make(np.random.default_rng((73, number)), shape).to(reader.device)
        with torch.autocast(reader.device.type, dtype=torch.bfloat16):
            hidden, _ = reader(lesson.batch)
        at = lesson.answer_at[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
        guess = reader.logits(hidden.gather(2, at)[:, :, 0]).argmax(-1)
        truth = lesson.targets.gather(2, lesson.answer_at[..., None])[..., 0]
        for kinds, row in zip(lesson.kinds, (guess == truth).tolist(), strict=True):
            for kind, hit in zip(kinds, row, strict=True):
                right.setdefault(kind, []).append(hit)
    everything = [hit for hits in right.values() for hit in hits]
    return {"right": float(np.mean(everything)), **{kind: float(np.mean(hits)) for kind, hits in sorted(right.items())}}
