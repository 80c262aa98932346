"""The actor that answers questions: a model, and the stores to read from. It remembers nothing of its own."""

from __future__ import annotations

import asyncio
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import ray

from cacheflow_ray.actors.api import Answered, AskCall, Found, Moment, SearchCall
from cacheflow_ray.actors.metrics import AnswererMetrics
from cacheflow_ray.actors.process import resident_bytes
from cacheflow_ray.actors.remote_store import RemoteStore
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.about import about
from cacheflow_ray.engine.reports import Evidence
from cacheflow_ray.errors import ClusterUnavailable, DeadlinePassed, LimitExceeded
from memory_store.errors import StoreError

#: Of an answer that nobody asks to go on with.
_ABANDONED_S = 30.0
_LOOK_EVERY_S = 0.02
#: A reader does not see the difference, and every call takes from the thread that generates.
_GATHER_S = 0.02

#: Text, and the end where it has come.
Some = tuple[str, Answered | None]


class Answerer:
    """Questions are asked by an id of the caller's, and fetched from piece by piece."""

    def __init__(self, setup: Setup) -> None:
        # Whoever calls an actor imports its class: torch is left to those that compute.
        import torch

        from cacheflow_ray.engine.kv_cache import Again
        from cacheflow_ray.engine.memory import VideoMemory
        from cacheflow_ray.engine.sources import Access
        from cacheflow_ray.models import load_model

        self._setup = setup
        if setup.encoder_options.torch_threads is not None:
            torch.set_num_threads(setup.encoder_options.torch_threads)
        self._store = RemoteStore(setup)
        model = load_model(setup.model, setup.model_options)
        again = Again(access=Access(root=setup.source_root))
        self._memory = VideoMemory(self._store, model, again=again)
        self._metrics = AnswererMetrics()
        model.batcher.watch = self._metrics.step
        self._threads = ThreadPoolExecutor(setup.max_answers, thread_name_prefix="answer")
        self._answers: dict[str, _Answering] = {}

    async def ask(self, question_id: str, call: AskCall) -> Some:
        """Begin to answer; returns the first piece. Raises: as `VideoMemory.ask`; DeadlinePassed, LimitExceeded."""
        self._sweep()
        if len(self._answers) >= 8 * self._setup.max_answers:
            raise LimitExceeded("too many questions wait here: try again, or add answerers", limit="max_answers")
        answering = _Answering(asyncio.get_running_loop(), call)
        self._answers[question_id] = answering
        self._threads.submit(self._answer, answering)
        return await self._take(question_id, 0.0)

    async def more(self, question_id: str) -> Some:
        """What has come since; waits until there is something, and a moment for what follows at once."""
        return await self._take(question_id, _GATHER_S)

    async def _take(self, question_id: str, gather_s: float) -> Some:
        answering = self._answers.get(question_id)
        if answering is None:
            raise ClusterUnavailable("the answer was given up: ask again", question_id=question_id)
        try:
            text, last = await answering.take(gather_s)
        except BaseException:
            self._answers.pop(question_id, None)
            raise
        if last is not None:
            self._answers.pop(question_id, None)
        return text, last

    async def cancel(self, question_id: str) -> None:
        """Stop within a token. Cancelling what is done does nothing."""
        answering = self._answers.pop(question_id, None)
        if answering is not None:
            answering.stopped = True

    async def search(self, call: SearchCall) -> Found:
        """See `api.ClusterPort.search`."""
        return await asyncio.to_thread(self._search, call)

    def _search(self, call: SearchCall) -> Found:
        top_k, time_range = call.options.top_k, call.options.time_range
        warnings: tuple[str, ...] = ()
        if call.library is None and len(call.streams) == 1:
            (stream,) = call.streams
            within = self._memory.search(stream, call.text, top_k=top_k, time_range=time_range)
            moments = [(stream, own) for own in within]
        else:
            where = call.library or call.streams
            found = self._memory.search_library(call.text, where=where, top_k=top_k, time_range=time_range)
            moments, warnings = [(own.stream, own.evidence) for own in found.moments], found.warnings
        return Found(moments=tuple(self._moment(*own, call.thumbnails) for own in moments), warnings=warnings)

    async def status(self) -> tuple[int, int, str, str]:
        """Process, resident bytes, node, and metrics as Prometheus text."""
        node = ray.get_runtime_context().get_node_id()
        return os.getpid(), resident_bytes(), node, self._metrics.text(len(self._answers))

    def _answer(self, answering: _Answering) -> None:
        try:
            answering.put(self._run(answering))
        except BaseException as error:
            answering.put(error)

    def _run(self, answering: _Answering) -> Answered:
        call = answering.call
        answering.check()
        if call.after_seq is not None:
            self._wait_for(answering, call.streams[0], call.after_seq)
        options = _in_time(call.options, call.deadline_s)
        if call.library is None and len(call.streams) == 1:
            answer = self._memory.ask(call.streams[0], call.question, options=options)
        else:
            where = call.library or call.streams
            answer = self._memory.ask_library(call.question, where=where, options=options)
        try:
            for piece in answer:
                answering.check()
                answering.put(piece)
        finally:
            answer.close()
        result = answer.result
        self._metrics.answered(result)
        moments = tuple(self._moment(answer.stream, evidence, call.thumbnails) for evidence in result.evidence)
        return Answered(stream_id=answer.stream, result=result, moments=moments)

    def _wait_for(self, answering: _Answering, stream: str, seq: int) -> None:
        """Until every frame before `seq` is durable."""
        while True:
            if about(self._store.load_state(stream)).next_seq >= seq:
                return
            answering.check()
            time.sleep(_LOOK_EVERY_S)

    def _moment(self, stream: str, evidence: Evidence, thumbnails: bool) -> Moment:
        picture: bytes | None = None
        if thumbnails:
            middle = evidence.block_idxs[len(evidence.block_idxs) // 2]
            with suppress(StoreError):  # let go meanwhile
                picture = self._memory.thumbnails(stream, [middle])[0]
        return Moment(stream_id=stream, evidence=evidence, thumbnail=picture or b"")

    def _sweep(self) -> None:
        now = time.monotonic()
        for question_id, answering in list(self._answers.items()):
            if now - answering.taken_at > _ABANDONED_S:
                answering.stopped = True
                del self._answers[question_id]


def _in_time(options: AskOptions, deadline_s: float | None) -> AskOptions:
    """With no more time for re-encoding than the caller waits."""
    left_s = math.inf if deadline_s is None else max(deadline_s - time.time(), 0.001)
    if left_s >= options.reencode.max_seconds:
        return options
    return options.model_copy(update={"reencode": options.reencode.model_copy(update={"max_seconds": left_s})})


class _Answering:
    """One answer between the thread that makes it and the calls that fetch it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: AskCall) -> None:
        self.call, self.stopped, self.taken_at = call, False, time.monotonic()
        self._loop = loop
        self._come: asyncio.Queue[str | Answered | BaseException] = asyncio.Queue()

    def check(self) -> None:
        """Raises: DeadlinePassed, or ClusterUnavailable when nobody wants it any more."""
        if self.stopped:
            raise ClusterUnavailable("the answer was given up: ask again")
        if self.call.deadline_s is not None and time.time() > self.call.deadline_s:
            raise DeadlinePassed("the answer was not ready in time: allow it longer, or lower max_new_tokens")

    def put(self, what: str | Answered | BaseException) -> None:
        self._loop.call_soon_threadsafe(self._come.put_nowait, what)

    async def take(self, gather_s: float) -> Some:
        """What has come, at least one thing, and what comes within `gather_s` of it.

        Raises what ended the answer, once the text before is fetched.
        """
        self.taken_at = time.monotonic()
        text = ""
        what = await self._come.get()
        until = time.monotonic() + gather_s
        while isinstance(what, str):
            text += what
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    what = await self._come.get()
            except TimeoutError:
                return text, None
        if isinstance(what, BaseException):
            if text:
                self._come.put_nowait(what)
                return text, None
            raise what
        return text, what
