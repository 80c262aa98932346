"""`VideoMemory`: the whole product in one process."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter, time
from types import TracebackType

from cacheflow_ray.config import DEFAULT_MODEL, AskOptions, ModelOptions, StoreOptions, StreamSettings
from cacheflow_ray.engine.answerer import Answer, Answerer, Prepared
from cacheflow_ray.engine.catalog import block_views, stream_info, stream_name
from cacheflow_ray.engine.ingesting import IngestJob, Source, ingest_all
from cacheflow_ray.engine.kv_cache import Again
from cacheflow_ray.engine.library import search_library, stream_to_ask
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.protocol import BlockStore
from cacheflow_ray.engine.reports import BlockView, Evidence, IngestProgress, IngestReport, LibraryFound, StreamInfo
from cacheflow_ray.engine.scope import EVERYWHERE, Where, records_of
from cacheflow_ray.errors import UsageError
from cacheflow_ray.models import Turn, VideoModel, load_model
from cacheflow_ray.types import TimeRange
from memory_store import Durability, Store, StoreUnavailable

#: How long a conversation can be taken up again, seconds.
SESSION_TTL_S = 24 * 3600.0


class VideoMemory:
    """A data folder and a model: video in, answers out. Made by `open`; close it, or use it as a context manager.

    One process at a time may write a data folder; others may open it read-only meanwhile.
    """

    def __init__(
        self,
        store: BlockStore,
        model: VideoModel | Callable[[], VideoModel],
        *,
        read_only: bool = False,
        again: Again | None = None,
    ) -> None:
        self.store, self._model, self._read_only = store, model, read_only
        self._again = again or Again()

    @classmethod
    def open(
        cls,
        data: str | Path,
        *,
        model: str | VideoModel = DEFAULT_MODEL,
        options: ModelOptions | None = None,
        store: StoreOptions | None = None,
        read_only: bool = False,
    ) -> VideoMemory:
        """Open (or create) a data folder. The model is loaded when it is first needed.

        Args:
            data: folder of the store.
            model: Hugging Face id, local folder, `random:<preset>`, or a loaded model to share.
            options: where and how a model given by name runs.
            store: how the folder is written.

        Raises:
            StoreLocked, StoreUnavailable, UnsupportedFormat, InvalidRecord: from the store.
        """
        chosen = model if isinstance(model, VideoModel) else lambda: load_model(model, options)
        how = store or StoreOptions()
        opened = Store.open(
            data,
            read_only=read_only,
            shards=how.shards,
            durability=Durability(how.durability),
            hot_bytes=how.hot_bytes,
        )
        return cls(opened, chosen, read_only=read_only)

    @property
    def model(self) -> VideoModel:
        """The loaded model. Raises UnsupportedModel or ModelLoadError when it cannot be loaded."""
        if not isinstance(self._model, VideoModel):
            self._model = self._model()
        return self._model

    def ingest(
        self,
        source: Source,
        *,
        stream: str | None = None,
        settings: StreamSettings | None = None,
        labels: Mapping[str, str] | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> IngestReport:
        """Ingest one source; see `ingest_many`. The stream is named after the file unless `stream` says otherwise."""
        job = IngestJob(source=source, stream=stream or stream_name(source), settings=settings, labels=labels or {})
        return self.ingest_many([job], progress=progress)[0]

    def ingest_many(
        self, jobs: Sequence[IngestJob], *, progress: Callable[[IngestProgress], None] | None = None
    ) -> list[IngestReport]:
        """Ingest several sources at once, batched over streams; resumes what was interrupted.

        Raises:
            UsageError: two jobs for one stream, or a read-only memory.
            Others as `ingest_all`.
        """
        names = [job.stream for job in jobs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(
                f"several sources for stream {twice[0]!r}: give each its own --stream name", stream=twice[0]
            )
        if self._read_only:
            raise UsageError("this memory was opened read-only: open it for writing to ingest")
        return ingest_all(self._backend, jobs, progress)

    def ask(self, stream: str, question: str, *, options: AskOptions | None = None) -> Answer:
        """Ask about a stream. Iterate the answer for its text, then read `result` for evidence, usage and timings.

        Raises:
            StreamNotFound, FingerprintMismatch, CorruptRecord: from the store.
            EmptyQuestion, QuestionTooLong, NothingToAnswer, UsageError (an unknown or expired session).
        """
        options = self.model.recommended.ask_options(options)
        earlier = self._turns(stream, options.session_id)
        prepared = Answerer(self._backend).prepare(stream, [*earlier, Turn(question=question)], options)
        return self._answer(question, earlier, prepared, options)

    def ask_library(self, question: str, *, where: Where = EVERYWHERE, options: AskOptions | None = None) -> Answer:
        """Ask about many streams: they are searched, and the one with the best moment answers (`Answer.stream`).

        Raises:
            As `search_library` and `ask`; UsageError: a session, which belongs to one stream.
        """
        options = self.model.recommended.ask_options(options)
        if options.session_id is not None:
            raise UsageError("a session belongs to one stream: name that, or leave the session out")
        started = perf_counter()
        chosen = stream_to_ask(self._backend, where, question, options)
        searched_ms = (perf_counter() - started) * 1e3
        options = options.model_copy(update={"time_range": chosen.time_range})
        prepared = Answerer(self._backend).prepare(chosen.stream, [Turn(question=question)], options)
        prepared.clock.spent("search", searched_ms)
        prepared = replace(prepared, warnings=(*chosen.warnings, *prepared.warnings))
        return self._answer(question, [], prepared, options)

    def _answer(self, question: str, earlier: Sequence[Turn], prepared: Prepared, options: AskOptions) -> Answer:
        session_id = options.session_id or uuid.uuid4().hex

        def remember(text: str) -> str | None:
            if self._read_only:
                return None
            turns = [(turn.question, turn.answer) for turn in earlier] + [(question, text)]
            payload = json.dumps(turns).encode()
            self.store.put_turns(_session_key(prepared.stream, session_id), payload, time() + SESSION_TTL_S)
            return session_id

        return Answer(prepared, remember)

    def search(self, stream: str, text: str, *, top_k: int = 8, time_range: TimeRange | None = None) -> list[Evidence]:
        """Moments of a stream that match a text, best first. Raises as `ask`."""
        options = self.model.recommended.ask_options(AskOptions(top_k=top_k, time_range=time_range))
        return list(Answerer(self._backend).search(stream, text, options))

    def search_library(
        self, text: str, *, where: Where = EVERYWHERE, top_k: int = 20, time_range: TimeRange | None = None
    ) -> LibraryFound:
        """Moments of many streams that match a text, best first. See `engine.library.search_library`.

        Args:
            where: which streams: by pattern of their names and by labels, or one by one.
            time_range: of each stream's own time.
        """
        options = self.model.recommended.ask_options(AskOptions(top_k=top_k, time_range=time_range))
        return search_library(self._backend, where, text, options)

    def streams(self) -> list[StreamInfo]:
        """All streams, by name."""
        return [stream_info(self.store, record) for record in self.store.list_streams()]

    def stream(self, name: str) -> StreamInfo:
        """One stream. Raises StreamNotFound."""
        return stream_info(self.store, self.store.get_stream(name))

    def models(self, where: Where = EVERYWHERE) -> list[str]:
        """Names of the models the streams were made with. Raises StreamNotFound, NothingToAnswer: no such streams."""
        return sorted({str(record.settings.get("model", "")) for record in records_of(self.store, where)})

    def blocks(self, name: str) -> list[BlockView]:
        """The stored blocks of a stream without their KV, oldest first."""
        return block_views(self.store, name)

    def thumbnails(self, name: str, block_idxs: Sequence[int]) -> list[bytes | None]:
        """JPEGs of blocks."""
        return self.store.read_thumbnails(name, list(block_idxs))

    def delete(self, name: str) -> None:
        """Delete a stream and all that is kept of it. Raises StreamNotFound."""
        self.store.delete_stream(name)

    def close(self) -> None:
        """Close the store; everything committed stays."""
        self.store.close()

    def __enter__(self) -> VideoMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A Ctrl-C in the middle of a transaction leaves it open: what ended the work is what the caller hears of.
        with suppress(StoreUnavailable) if error is not None else nullcontext():
            self.close()

    @property
    def _backend(self) -> Backend:
        return Backend(model=self.model, store=self.store, again=self._again)

    def _turns(self, stream: str, session_id: str | None) -> list[Turn]:
        if session_id is None:
            return []
        payload = self.store.get_turns(_session_key(stream, session_id), time())
        if payload is None:
            raise UsageError(
                f"no session {session_id!r} on stream {stream!r} (they last {SESSION_TTL_S / 3600:g} hours): leave "
                "--session out to start a new one",
                session_id=session_id,
            )
        return [Turn(question=question, answer=answer) for question, answer in json.loads(payload)]


def _session_key(stream: str, session_id: str) -> str:
    """Sessions belong to a stream, and go with it when it is deleted."""
    return f"{stream}/{session_id}"
