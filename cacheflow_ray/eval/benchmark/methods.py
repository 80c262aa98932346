"""Ways to answer a question about a video being watched: the memory, and the floors it must rise above."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.core.dropping import KEEP_ALL
from cacheflow_ray.engine import AnswerResult
from cacheflow_ray.engine.answerer import Answer, Answerer, Prepared
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.wording import Wording
from cacheflow_ray.engine.writer import StreamWriter
from cacheflow_ray.errors import UsageError
from cacheflow_ray.eval.benchmark.videos import WatchedVideo
from cacheflow_ray.models import Turn
from memory_store.errors import StreamNotFound

CACHEFLOW, BLIND, LAST = "cacheflow", "blind", "last"

#: Stream the latest frames are put in, for the time of one question.
_LAST_STREAM = "eval-last-frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOptions:
    """What the answers depend on.

    Args:
        settings: of the streams.
        ask: of the memory's answers.
        last_frames: frames the floor of that name is given.
    """

    settings: StreamSettings
    ask: AskOptions
    last_frames: int

    @property
    def fps(self) -> float:
        """Frames taken per second of video."""
        assert self.settings.fps is not None, "an evaluation samples at a rate"
        return self.settings.fps


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What one asks. `max_new_tokens`: the answer stops here at the latest."""

    prompt: str
    wording: Wording
    max_new_tokens: int


@dataclass(slots=True, eq=False)
class Session:
    """One video being watched by the methods that want to see it.

    Args:
        stream: the one its memory is in.
        watched: its frames.
        writer: into its memory; None where no method asks it.
        peak_bytes: most GPU memory of watching so far; None without a GPU.
    """

    backend: Backend
    options: MethodOptions
    stream: str
    watched: WatchedVideo | None
    writer: StreamWriter | None
    peak_bytes: int | None = field(default=None)

    def advance(self, time_s: float) -> None:
        """Watch up to a moment; infinity is the end."""
        if self.watched is None:
            return
        frames = self.watched.until(time_s)
        if self.writer is None:
            for _ in frames:
                pass
            return
        known = self.writer.state.next_seq
        with peak_memory(self.backend) as peak:
            self.writer.push(frame for frame in frames if frame.seq >= known)
            if time_s == math.inf:
                self.writer.finish()
        if peak:
            self.peak_bytes = max(self.peak_bytes or 0, peak[0])


@contextmanager
def watching(
    backend: Backend, options: MethodOptions, video: Path, methods: set[str], first_s: float
) -> Iterator[Session]:
    """Open a video for some methods, going on with what an interrupted run has of it.

    Args:
        first_s: the earliest moment that is asked about: a memory that has gone beyond it is begun anew.

    Raises:
        MediaError: nothing of it can be decoded.
    """
    stream = "eval-" + hashlib.sha256(str(video).encode()).hexdigest()[:24]
    if methods <= {BLIND}:
        yield Session(backend, options, stream, None, None)
        return
    with WatchedVideo(video, fps=options.fps, keep=options.last_frames) as watched:
        writer = _writer(backend, options, stream, first_s) if CACHEFLOW in methods else None
        yield Session(backend, options, stream, watched, writer)


def _writer(backend: Backend, options: MethodOptions, stream: str, first_s: float) -> StreamWriter:
    writer = StreamWriter(backend, stream, settings=options.settings)
    reached_s = writer.state.last_timestamp_s
    if reached_s is not None and reached_s > first_s and writer.state.next_seq > 1:
        backend.store.delete_stream(stream)
        writer = StreamWriter(backend, stream, settings=options.settings)
    return writer


def forget(backend: Backend, stream: str) -> None:
    """Delete a stream, if there is one: a library's KV takes more room than its videos."""
    try:
        backend.store.delete_stream(stream)
    except StreamNotFound:
        return


def ask_memory(session: Session, words: Words) -> AnswerResult:
    """CacheFlow: what was retrieved, the local window, and the open tail."""
    options = session.options.ask.model_copy(update={"max_new_tokens": words.max_new_tokens})
    turns = [Turn(question=words.prompt)]
    return _finished(Answerer(session.backend).prepare(session.stream, turns, options, words.wording))


def ask_blind(session: Session, words: Words) -> AnswerResult:
    """The question alone, no video."""
    options = AskOptions(max_new_tokens=words.max_new_tokens)
    return _finished(Answerer(session.backend).prepare_blind([Turn(question=words.prompt)], options, words.wording))


def ask_last(session: Session, words: Words) -> AnswerResult:
    """The last N frames before the question, whole, and nothing else."""
    assert session.watched is not None, "whoever asks about the last frames watches"
    backend = session.backend
    settings = StreamSettings(
        fps=session.options.fps, tau=KEEP_ALL, adaptive=False, pixel_gate=None,
        block_size=session.options.settings.block_size, window_blocks=_window(backend, session.options.settings),
    )  # fmt: skip
    forget(backend, _LAST_STREAM)
    writer = StreamWriter(backend, _LAST_STREAM, settings=settings)
    writer.push(session.watched.recent)
    writer.finish()
    options = AskOptions(max_new_tokens=words.max_new_tokens)
    result = _finished(Answerer(backend).prepare(_LAST_STREAM, [Turn(question=words.prompt)], options, words.wording))
    forget(backend, _LAST_STREAM)
    return result


#: Every way to answer, in the order of the table.
METHODS: dict[str, Callable[[Session, Words], AnswerResult]] = {
    CACHEFLOW: ask_memory,
    BLIND: ask_blind,
    LAST: ask_last,
}


def check_methods(names: Sequence[str]) -> None:
    """Raises UsageError for a method there is not, or none at all."""
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        told = f"no method {unknown[0]!r}" if unknown else "no methods"
        raise UsageError(f"{told}: use some of {', '.join(METHODS)}")


def check_last_frames(options: MethodOptions, backend: Backend) -> None:
    """Raises UsageError for more last frames than a window holds, for all of them are attended to."""
    block_size = options.settings.block_size or backend.model.default_block_size
    most = _window(backend, options.settings) * block_size // backend.model.default_block_size
    if not 1 <= options.last_frames <= most:
        raise UsageError(f"last_frames: {options.last_frames} is not allowed; allowed: 1 to {most} with this model")


def _window(backend: Backend, settings: StreamSettings) -> int:
    """The blocks that all the last frames are seen in at once."""
    return backend.model.default_window_tokens // (settings.block_size or backend.model.default_block_size)


@contextmanager
def peak_memory(backend: Backend) -> Iterator[list[int]]:
    """Within it: a list that holds the peak of GPU memory in bytes once it is left; empty without a GPU."""
    peak: list[int] = []
    if backend.model.device.type != "cuda":
        yield peak
        return
    torch.cuda.reset_peak_memory_stats(backend.model.device)
    yield peak
    peak.append(torch.cuda.max_memory_allocated(backend.model.device))


def _finished(prepared: Prepared) -> AnswerResult:
    """The whole answer, kept by nobody."""
    return Answer(prepared, lambda text: None).result
