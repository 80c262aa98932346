"""How near KV that is encoded again comes to the KV that was kept, by length of the warm-up.

A film of the synthetic world is ingested with all its KV. Blocks are then encoded again from the film as if no KV were
kept, and set beside what is: the KV itself, what the model would say next, and whether it is right.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.opened import Backend, open_stream
from cacheflow_ray.engine.reencode import reach_of
from cacheflow_ray.engine.rehydration import Plan, rehydrate
from cacheflow_ray.engine.retrieval import retrieve, scope
from cacheflow_ray.engine.sources import SourceNote
from cacheflow_ray.engine.span_encoder import SpanEncoder
from cacheflow_ray.engine.spans import plan_spans
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.windows import read_blocks
from cacheflow_ray.errors import UsageError
from cacheflow_ray.eval.needle.answering import answer, room
from cacheflow_ray.media import Encoding
from cacheflow_ray.models import Suffix, Turn, VideoModel
from cacheflow_ray.world import Question, film, make_questions, make_script

Note = Callable[[str], None]

_STREAM = "film"

#: With pictures that are decoded out of order, as most cameras and archives have them.
_FILM = Encoding(options={"g": "64", "bf": "3", "crf": "18"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReencodePlan:
    """What is measured.

    Args:
        warm_ups: lengths of the warm-up, in blocks.
        frames: length of the film, at 1 per second.
        blocks: compared for each length, evenly spread over those no warm-up reaches the stream's start from.
        per_kind: questions of each kind.
        settings, ask: of the stream, and of the questions.
    """

    warm_ups: tuple[int, ...]
    frames: int = 1024
    blocks: int = 32
    per_kind: int = 8
    settings: StreamSettings
    ask: AskOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpRow:
    """One length of the warm-up.

    Args:
        warm_up: blocks.
        exact: of the blocks compared, those the plan says are as they were.
        key_error, value_error: of each layer, ||again - kept|| / ||kept||, mean over blocks.
        worst_error: the largest of all, of keys or values.
        logits: largest difference of any word's logit when the answer begins, mean over questions.
        same_word: share of questions whose answer begins with the same token.
        right: share of questions answered rightly.
        seconds: to encode one block again, its warm-up included.
    """

    warm_up: int
    exact: int
    key_error: tuple[float, ...]
    value_error: tuple[float, ...]
    worst_error: float
    logits: float
    same_word: float
    right: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReencodeReport:
    """`kept_right`, `left_out_right`: share answered rightly from the KV as kept, and without the retrieved blocks."""

    model: str
    window_blocks: int
    block_size: int
    num_blocks: int
    compared: int
    questions: int
    kept_right: float
    left_out_right: float
    rows: tuple[WarmUpRow, ...]


def usual_warm_ups(model: VideoModel, settings: StreamSettings) -> tuple[int, ...]:
    """None, a few, and what it takes to be exact."""
    spec = StreamSpec.resolve(settings, model, "")
    window, layers = spec.window_blocks, model.encoder.num_layers
    return tuple(sorted({0, 1, 2, 4, window, 2 * window, (layers - 1) * window}))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Asked:
    """A question, the blocks it retrieves, and what the model says from them as they were kept."""

    question: Question
    suffix: Suffix
    hits: tuple[int, ...]
    window: range
    logits: Tensor
    right: bool
    right_without: bool


def measure(model: VideoModel, plan: ReencodePlan, note: Note) -> ReencodeReport:
    """Raises: UsageError: the film is too short for the longest warm-up."""
    with tempfile.TemporaryDirectory(prefix="cacheflow-reencode-") as place:
        path, script = Path(place) / "film.mp4", make_script(0, plan.frames)
        film(script, path, codec=_FILM)
        with VideoMemory.open(Path(place) / "data", model=model) as memory:
            memory.ingest(path, stream=_STREAM, settings=plan.settings)
            backend = Backend(model=model, store=memory.store)
            return _Study(backend, plan).report(make_questions(script, per_kind=plan.per_kind), note)


class _Study:
    """One film in the store."""

    def __init__(self, backend: Backend, plan: ReencodePlan) -> None:
        self._backend, self._plan = backend, plan
        self._opened = open_stream(backend, _STREAM)
        source = SourceNote.of(backend.store.get_stream(_STREAM).settings)
        assert source is not None, "a stream made from a file has a source on record"
        self._encoder = SpanEncoder(backend, self._opened, source)

    def report(self, questions: Sequence[Question], note: Note) -> ReencodeReport:
        opened, compared = self._opened, self._compared()
        kept = {idx: read_blocks(self._backend, _STREAM, range(idx, idx + 1))[1] for idx in compared}
        asked = [own for question in questions if (own := self._ask(question)) is not None]
        rows = []
        for warm_up in self._plan.warm_ups:
            rows.append(self._row(warm_up, kept, asked))
            note(f"warm-up of {warm_up} blocks: {rows[-1].seconds * 1e3:.0f} ms per block")
        return ReencodeReport(
            model=self._backend.model.name,
            window_blocks=opened.spec.window_blocks,
            block_size=opened.spec.block_size,
            num_blocks=opened.num_blocks,
            compared=len(compared),
            questions=len(asked),
            kept_right=_mean([own.right for own in asked]),
            left_out_right=_mean([own.right_without for own in asked]),
            rows=tuple(rows),
        )

    def _compared(self) -> tuple[int, ...]:
        first, count = max(self._plan.warm_ups) + 1, self._opened.num_blocks
        if first >= count:
            raise UsageError(
                f"the film has {count} blocks, too few for a warm-up of {first - 1}: make it longer with --frames"
            )
        step = max(1, (count - first) // self._plan.blocks)
        return tuple(range(first, count, step))[: self._plan.blocks]

    def _ask(self, question: Question) -> _Asked | None:
        """None: it retrieves nothing."""
        backend, opened = self._backend, self._opened
        suffix = backend.model.prompt.suffix([Turn(question=question.text)])
        where = scope(backend.store, opened, None, opened.spec.window_blocks)
        hits = tuple(
            sorted(hit.block_idx for hit in retrieve(backend, opened, suffix, where.candidates, self._plan.ask))
        )
        if not hits:
            return None
        logits, text = self._said(suffix, hits, where.window, {})
        _, without = self._said(suffix, (), where.window, {})
        return _Asked(
            question=question, suffix=suffix, hits=hits, window=where.window, logits=logits,
            right=text == question.answer, right_without=without == question.answer,
        )  # fmt: skip

    def _said(
        self, suffix: Suffix, hits: Sequence[int], window: range, given: Mapping[int, Tensor]
    ) -> tuple[Tensor, str]:
        """Logits of the answer's first token, and the answer."""
        model = self._backend.model
        plan = Plan(
            blocks=(*hits, *window), num_window=len(window), with_tail=True, room=room(model, suffix),
            given={idx: given[idx] for idx in hits if idx in given},
        )  # fmt: skip
        ready = rehydrate(self._backend, self._opened, plan)
        logits = model.next_logits(ready.context, suffix, ready.text_start)
        return logits, answer(model, ready.context, suffix, ready.text_start)

    def _row(self, warm_up: int, kept: Mapping[int, Tensor], asked: Sequence[_Asked]) -> WarmUpRow:
        reach = reach_of(self._backend, self._opened, warm_up)
        again: dict[int, Tensor] = {}
        exact = 0
        started = perf_counter()
        for idx in sorted({*kept, *(hit for own in asked for hit in own.hits)}):
            (span,) = plan_spans([idx], reach, _nothing_kept)
            again[idx] = dict(self._encoder.encode(span))[idx].cpu()
            exact += idx in kept and idx in span.exact
        seconds = (perf_counter() - started) / len(again)
        errors = torch.stack([_error(again[idx], own) for idx, own in kept.items()])  # [N, L, 2]
        said = [self._said(own.suffix, own.hits, own.window, again) for own in asked]
        pairs = list(zip(asked, said, strict=True))
        return WarmUpRow(
            warm_up=warm_up,
            exact=exact,
            key_error=tuple(errors[:, :, 0].mean(0).tolist()),
            value_error=tuple(errors[:, :, 1].mean(0).tolist()),
            worst_error=float(errors.max()),
            logits=_mean([float((logits - own.logits).abs().max()) for own, (logits, _) in pairs]),
            same_word=_mean([bool(logits.argmax() == own.logits.argmax()) for own, (logits, _) in pairs]),
            right=_mean([text == own.question.answer for own, (_, text) in pairs]),
            seconds=seconds,
        )


def _nothing_kept(blocks: range) -> tuple[range, frozenset[int]]:
    return blocks, frozenset(blocks)


def _error(again: Tensor, kept: Tensor) -> Tensor:
    """Relative error of each layer's keys and values, [L, 2], of KV [L, 2, H, B, D]."""
    wanted = kept.double()
    error: Tensor = (again.double() - wanted).flatten(2).norm(dim=2) / wanted.flatten(2).norm(dim=2)
    return error


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
