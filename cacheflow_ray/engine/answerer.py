"""Questions: retrieve, rehydrate, generate. Stateless: all it needs is in the store, nothing of it is changed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.opened import Backend, OpenedStream, open_stream
from cacheflow_ray.engine.reencode import Recovered, recover
from cacheflow_ray.engine.rehydration import Plan, rehydrate
from cacheflow_ray.engine.reports import AnswerResult, Evidence, Reencoded, Usage
from cacheflow_ray.engine.retrieval import Scope, evidence, retrieve, retrieve_all, scope, search_suffix
from cacheflow_ray.engine.wording import Wording
from cacheflow_ray.errors import NothingToAnswer, QuestionTooLong
from cacheflow_ray.models import Suffix, Turn, VideoModel
from cacheflow_ray.models.generation import Generation
from memory_store.records import Hit

#: The question as it is.
PLAIN = Wording()


class Clock:
    """Milliseconds per stage, one after the other."""

    def __init__(self) -> None:
        self._started = self._last = perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """The time since the lap before belongs to `name`."""
        now = perf_counter()
        self.laps[name] = (now - self._last) * 1e3
        self._last = now

    def spent(self, name: str, ms: float) -> None:
        """What was done before the start counts, too, as `name`."""
        self.laps[name] = ms
        self._started -= ms / 1e3

    def mark(self, name: str) -> None:
        """The time since the start, as `name`."""
        self.laps[name] = (perf_counter() - self._started) * 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A question with its context in memory: all but the answer. `stream`: that it is asked of, if any."""

    stream: str = ""
    generation: Generation
    evidence: tuple[Evidence, ...]
    usage: Usage
    warnings: tuple[str, ...]
    clock: Clock
    reencoded: Reencoded | None = None


class Answer:
    """An answer being made: iterate for pieces of text as they come; `result` finishes it and tells the rest.

    Args:
        prepared: by an `Answerer`.
        remember: keeps the finished answer's text for follow-up questions; returns the session's id.
    """

    def __init__(self, prepared: Prepared, remember: Callable[[str], str | None]) -> None:
        self._prepared, self._remember = prepared, remember
        self._pieces = self._run()
        self._text: list[str] = []
        self._result: AnswerResult | None = None
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def stream(self) -> str:
        """The stream that answers."""
        return self._prepared.stream

    def close(self) -> None:
        """Stop generating. What was not iterated yet is lost."""
        self._pieces.close()

    @property
    def result(self) -> AnswerResult:
        """The whole answer; generates what has not been iterated yet. Raises again what ended it early."""
        for _ in self._pieces:
            pass
        if self._failure is not None:
            raise self._failure
        if self._result is None:
            prepared, text = self._prepared, "".join(self._text)
            prepared.clock.mark("total")
            self._result = AnswerResult(
                text=text,
                evidence=prepared.evidence,
                session_id=self._remember(text),
                usage=replace(prepared.usage, generated_tokens=prepared.generation.num_tokens),
                timings=dict(prepared.clock.laps),
                warnings=prepared.warnings,
                reencoded=prepared.reencoded,
            )
        return self._result

    def _run(self) -> Generator[str, None, None]:
        try:
            for piece in self._prepared.generation:
                if not self._text:
                    self._prepared.clock.mark("first_token")
                self._text.append(piece)
                yield piece
        except Exception as error:
            self._failure = error  # or `result` would remember half an answer as a whole one
            raise
        self._prepared.clock.lap("generate")


class Answerer:
    """Answers questions about streams of one store with one model. Safe to use from several threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def prepare(self, stream_id: str, turns: Sequence[Turn], options: AskOptions, wording: Wording = PLAIN) -> Prepared:
        """Retrieve and rehydrate for the last of `turns`; generation starts when its iteration does.

        Raises:
            StreamNotFound, FingerprintMismatch, BlockNotFound, CorruptRecord: from the store. KvDropped: a block of
            the window has no KV and cannot be re-encoded; retrieved blocks of which that is so are left out, and the
            answer's warnings say so.
            EmptyQuestion, QuestionTooLong, NothingToAnswer.
        """
        clock, backend = Clock(), self._backend
        suffix = wording.asked(backend.model.prompt, turns)
        opened = open_stream(backend, stream_id)
        window = opened.spec.window_blocks if options.window_blocks is None else options.window_blocks
        where = scope(backend.store, opened, options.time_range, window)
        room = backend.model.num_after_video + len(suffix.ids) + options.max_new_tokens
        budget = _affordable_blocks(backend.model, opened, where, suffix, room)
        clock.lap("prepare")
        sought = [wording.sought(backend.model.prompt, suffix)]
        if len(turns) > 1:
            sought.append(backend.model.prompt.suffix([Turn(question=turns[-2].question)]))
        hits = retrieve_all(backend, opened, sought, where.candidates, options)
        hits, held, warnings = _fit(hits, where.window, budget)
        clock.lap("retrieve")
        hits, recovered, told = self._with_kv(opened, hits, held, options)
        if recovered.kv:
            clock.lap("reencode")
        if not hits and not held and not where.with_tail and recovered.left_out:
            raise NothingToAnswer(
                f"nothing is left of stream {stream_id!r} to answer from: {told[0]}", stream=stream_id
            )
        blocks = (*sorted(hit.block_idx for hit in hits), *held)
        plan = Plan(
            blocks=blocks, num_window=len(held), with_tail=where.with_tail, room=room, given=recovered.kv
        )  # fmt: skip
        ready = rehydrate(backend, opened, plan)
        clock.lap("rehydrate")
        return Prepared(
            stream=stream_id,
            generation=backend.model.generate(ready.context, suffix, ready.text_start, options.max_new_tokens),
            evidence=evidence(hits, held, ready.tokens),
            usage=Usage(
                context_tokens=ready.context.length,
                retrieved_blocks=len(hits),
                window_blocks=len(held),
                tail_tokens=len(opened.state.tail) if where.with_tail else 0,
                question_tokens=len(suffix.ids),
                generated_tokens=0,
                fetched_bytes=ready.fetched_bytes,
            ),
            warnings=(*told, *warnings),
            clock=clock,
            reencoded=recovered.report,
        )

    def _with_kv(
        self, opened: OpenedStream, hits: list[Hit], held: range, options: AskOptions
    ) -> tuple[list[Hit], Recovered, tuple[str, ...]]:
        """Hits whose KV is kept or had again, what was had again (of the window, too), and warnings that tell it."""
        blocks = [*held, *(hit.block_idx for hit in hits)]
        gone = self._backend.store.without_kv(opened.stream_id, blocks) if blocks else {}
        if not gone:
            return hits, Recovered(), ()
        recovered = recover(self._backend, opened, [idx for idx in blocks if idx in gone], options.reencode)
        warnings = [] if recovered.report is None else [recovered.report.warning]
        for why in dict.fromkeys(recovered.left_out.values()):
            named = ", ".join(f"{idx} ({gone[idx]})" for idx, own in sorted(recovered.left_out.items()) if own == why)
            warnings.append(
                f"left out block(s) {named}, of which only the summary is kept: re-encode needed, but {why}"
            )
        return [hit for hit in hits if hit.block_idx not in recovered.left_out], recovered, tuple(warnings)

    def prepare_blind(self, turns: Sequence[Turn], options: AskOptions, wording: Wording = PLAIN) -> Prepared:
        """As `prepare`, of no video at all: the prompt with nothing where the frames would stand.

        What it gets right, it knows from the question alone: the floor of every measurement.

        Raises:
            EmptyQuestion, QuestionTooLong.
        """
        clock, model = Clock(), self._backend.model
        suffix = wording.asked(model.prompt, turns)
        room = model.num_after_video + len(suffix.ids) + options.max_new_tokens
        if model.prefix.length + room > model.max_context:
            raise QuestionTooLong(
                f"the question takes {len(suffix.ids)} tokens; with the answer's that does not fit the "
                f"{model.max_context} of model {model.name!r}: shorten it",
                tokens=len(suffix.ids),
            )
        context = model.context(model.prefix.length + room)
        clock.lap("prepare")
        return Prepared(
            generation=model.generate(context, suffix, model.prefix.length, options.max_new_tokens),
            evidence=(),
            usage=Usage(
                context_tokens=context.length, retrieved_blocks=0, window_blocks=0, tail_tokens=0,
                question_tokens=len(suffix.ids), generated_tokens=0, fetched_bytes=0,
            ),
            warnings=(),
            clock=clock,
        )  # fmt: skip

    def search(self, stream_id: str, text: str, options: AskOptions) -> tuple[Evidence, ...]:
        """Moments that match a text, best first; nothing is generated. Raises as `prepare`."""
        opened, suffix = open_stream(self._backend, stream_id), search_suffix(self._backend.model, text)
        where = scope(self._backend.store, opened, options.time_range, window_blocks=0)
        hits = retrieve(self._backend, opened, suffix, where.candidates, options)
        found = [hit.block_idx for hit in hits]
        tokens = self._backend.store.read_tokens(stream_id, found) if found else []
        return evidence(hits, range(0), dict(zip(found, tokens, strict=True)))


def _affordable_blocks(model: VideoModel, opened: OpenedStream, where: Scope, suffix: Suffix, room: int) -> int:
    """How many blocks fit the context the model was trained on, beside everything that must be there.

    Raises:
        QuestionTooLong: not even one block (or the tail alone) does.
    """
    tail = len(opened.state.tail) if where.with_tail else 0
    left = model.max_context - model.prefix.length - tail - room
    if left < (0 if tail else opened.spec.block_size):
        own = sum(suffix.question)
        mend = "shorten the question" if own > len(suffix.ids) // 2 else "start without --session"
        raise QuestionTooLong(
            f"the question takes {own} tokens, {len(suffix.ids)} with what was said before; with the answer's and the "
            f"video's that does not fit the {model.max_context} of model {model.name!r}: {mend}, or lower "
            "--max-new-tokens",
            tokens=len(suffix.ids),
        )
    return left // opened.spec.block_size


def _fit(hits: list[Hit], window: range, budget: int) -> tuple[list[Hit], range, tuple[str, ...]]:
    """Give up retrieved blocks, the least first, then the oldest of the window, until `budget` blocks are left."""
    num_hits = min(len(hits), max(budget - len(window), 0))
    held = window[max(0, len(window) + num_hits - budget) :]
    warnings = [
        f"{what}: {kept} blocks instead of {wanted}, for the model's context holds no more"
        for what, kept, wanted in (("retrieved", num_hits, len(hits)), ("window", len(held), len(window)))
        if kept < wanted
    ]
    return hits[:num_hits], held, tuple(warnings)
