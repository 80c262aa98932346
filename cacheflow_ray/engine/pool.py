"""Many pushed streams into one store: equal shares of every step, one ragged batch, commits beside the next step.

    push ──> queue ──step: decode, vision, drop, pack, language model──> taken ──commit──> durable: push is done
             bounded by what may be pushed and not durable                 one commit of a stream at a time

A step takes the same number of frames from every stream that has some, so that none starves. A stream that fails ends
alone; so do the streams of a store that is away, while the others go on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from cacheflow_ray.config import EncoderOptions
from cacheflow_ray.engine.batch import StageTimes, commit_apart, encode_frames
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.position import End, Overload, Position
from cacheflow_ray.engine.sessions import Item, Push, Session, Writing, refuse, resolve
from cacheflow_ray.engine.spec import StreamSpec, check_fingerprint
from cacheflow_ray.engine.stream import StreamEncoder
from cacheflow_ray.errors import CacheFlowError, ClusterUnavailable, InvalidFeatures, LimitExceeded, UsageError
from cacheflow_ray.media import Frame
from cacheflow_ray.models.family import VISION_BATCH
from memory_store.errors import EpochFenced, StoreError
from memory_store.records import Commit

_LOG = logging.getLogger(__name__)

Make = Callable[[], Frame]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one step did: streams and frames in it, and seconds by stage."""

    streams: int
    frames: int
    stages_s: dict[str, float]


class EncoderPool:
    """Encodes streams that are pushed to it until it is closed. Thread-safe; one thread of its own does the steps.

    Args:
        backend: model and store.
        group_of: streams of one group are committed together; those of another do not wait for them.
        on_step: told of every step.
    """

    def __init__(
        self,
        backend: Backend,
        options: EncoderOptions,
        *,
        group_of: Callable[[str], int] = lambda _: 0,
        on_step: Callable[[StepReport], None] | None = None,
    ) -> None:
        self._backend, self._options, self._group_of, self._on_step = backend, options, group_of, on_step
        self._sessions: dict[str, Session] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._most = VISION_BATCH * backend.model.vision.frames_per_unit  # of one stream in a step
        self._committed_at = perf_counter()
        self._workers = ThreadPoolExecutor(options.decode_threads, thread_name_prefix="decode")
        self._writers = ThreadPoolExecutor(options.writers, thread_name_prefix="commit")
        self._thread = threading.Thread(target=self._run, name="encode", daemon=True)
        self._thread.start()

    def open(self, stream_id: str, epoch: int, overload: Overload = Overload.BLOCK) -> Position:
        """Become the one who pushes a stream; an earlier session on it ends with EpochFenced.

        Args:
            epoch: the caller's, of `Store.claim`.

        Raises:
            StreamNotFound, FingerprintMismatch, CorruptRecord; EpochFenced: there is a newer owner by now.
            LimitExceeded: the pool has as many streams as it may have.
        """
        record = self._backend.store.get_stream(stream_id)
        check_fingerprint(record, self._backend.model)
        with self._changed:
            if len(self._sessions) >= self._options.max_streams and stream_id not in self._sessions:
                raise LimitExceeded(
                    f"this encoder has {self._options.max_streams} streams already: add encoders, or wait",
                    limit="max_streams", value=self._options.max_streams,
                )  # fmt: skip
            earlier = self._sessions.get(stream_id)
            if earlier is not None:
                self._end(stream_id, earlier, EpochFenced(f"another took stream {stream_id!r} over", epoch=epoch))
        encoder = StreamEncoder(self._backend, stream_id, StreamSpec.of(record), epoch)
        session = Session(encoder, epoch, overload, self._options.queue_frames)
        if session.position.complete:
            return session.position
        with self._changed:
            if self._stopping:
                raise ClusterUnavailable("this encoder is being stopped: open the stream anew")
            self._sessions[stream_id] = session
        return session.position

    def push(self, stream_id: str, epoch: int, frames: Sequence[Make]) -> Future[Position]:
        """Let frames wait for their turn; the future is done once they are durable or left out.

        Args:
            frames: what gives each, in order of seq; called in another thread. Raising MediaError ends the session.

        Raises:
            EpochFenced, UsageError (not open), LimitExceeded (more than may wait), and what ended the session.
        """
        push = Push(left=len(frames))
        with self._changed:
            session = self._session(stream_id, epoch)
            if session.end is not None:
                raise UsageError(f"stream {stream_id!r} was finished: nothing can follow")
            if len(session.queue) + len(session.taken) + len(frames) > 4 * self._options.queue_frames:
                raise LimitExceeded(
                    f"more than {4 * self._options.queue_frames} frames of stream {stream_id!r} wait: heed the credits",
                    limit="queue_frames", value=4 * self._options.queue_frames,
                )  # fmt: skip
            session.pushed_at = perf_counter()
            done = session.add([Item(make=make, push=push) for make in frames])
            self._decode(session)
            for own in [*done, *([] if frames else [push])]:
                resolve(own.done, session.position)
            self._changed.notify_all()
        return push.done

    def finish(self, stream_id: str, epoch: int, end: End) -> Future[Position]:
        """Encode what waits, commit it and end the session. Raises: as `push`."""
        with self._changed:
            session = self._session(stream_id, epoch)
            if session.end is None:
                session.end = end
            self._changed.notify_all()
            return session.end.done

    def live(self) -> dict[str, tuple[Position, int]]:
        """Position and number of waiting frames of every stream that is open."""
        with self._changed:
            return {name: (own.position, len(own.queue)) for name, own in self._sessions.items()}

    def close(self, timeout_s: float) -> None:
        """Encode and commit what waits, as far as time allows; sessions that are left raise ClusterUnavailable."""
        with self._changed:
            self._stopping = True
            ends = [self.finish(name, own.epoch, End(final=False)) for name, own in self._sessions.items()]
        deadline = perf_counter() + timeout_s
        for end in ends:
            try:
                end.result(max(0.0, deadline - perf_counter()))
            except Exception:
                _LOG.warning("a stream was not encoded to its end before the stop", exc_info=True)
        with self._changed:
            for name, session in list(self._sessions.items()):
                self._end(name, session, ClusterUnavailable("the encoder was stopped: open the stream anew"))
            self._changed.notify_all()
        self._thread.join()
        self._writers.shutdown()
        self._workers.shutdown(cancel_futures=True)

    def _session(self, stream_id: str, epoch: int) -> Session:
        session = self._sessions.get(stream_id)
        if session is not None and session.epoch == epoch:
            return session
        if session is not None:
            raise EpochFenced(f"another took stream {stream_id!r} over: open it anew", stream_id=stream_id, epoch=epoch)
        raise ClusterUnavailable(f"stream {stream_id!r} is not open here (any more): open it anew", stream=stream_id)

    def _end(self, stream_id: str, session: Session, error: Exception) -> None:
        """Forget a session, telling everyone who waits for it why. Called with the lock."""
        if self._sessions.get(stream_id) is session:
            del self._sessions[stream_id]
        for future in session.fail(error):
            refuse(future, error)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._may_go_on, self._options.commit_interval_s)
                if self._stopping and not self._sessions:
                    return
                self._let_go_of_idle()
                feeds = self._take()
            try:
                if feeds:
                    self._step(feeds)
                self._finish_ended()
                self._commit_due()
            except Exception as error:  # of the model: no stream's own, and all that were in the step have lost frames
                _LOG.exception("an encoding step failed")
                with self._changed:
                    for session in feeds or list(self._sessions.values()):
                        self._end(session.encoder.stream_id, session, _as_ours(error))

    def _may_go_on(self) -> bool:
        return (self._stopping and not self._sessions) or any(
            self._may_take(own) or self._must_end(own) or self._may_commit(own) for own in self._sessions.values()
        )

    def _let_go_of_idle(self) -> None:
        """Streams whose client has gone without a word hold a window's KV for nothing."""
        before = perf_counter() - self._options.idle_s
        for session in self._sessions.values():
            if session.pushed_at < before and session.end is None and not session.queue:
                session.end = End(final=False)

    def _may_take(self, session: Session) -> bool:
        """Whether it has frames for a step, and not too many on their way to a slow store."""
        return session.num_made > 0 and len(session.taken) < 2 * self._options.queue_frames

    def _must_end(self, session: Session) -> bool:
        return session.end is not None and not session.ended and not session.queue and not session.writing

    def _may_commit(self, session: Session) -> bool:
        return session.dirty and not session.writing and (session.encoder.has_blocks or not session.queue)

    def _take(self) -> dict[Session, list[Item]]:
        """An equal share of every stream that has frames; those that come after it are decoded meanwhile."""
        ready = [session for session in self._sessions.values() if self._may_take(session)]
        share = max(1, min(self._most, self._options.step_frames // max(1, len(ready))))
        taken: dict[Session, list[Item]] = {}
        for session in ready:
            taken[session] = [session.queue.popleft() for _ in range(min(share, session.num_made))]
            self._decode(session)
        return taken

    def _decode(self, session: Session) -> None:
        """Have the frames of the next step made, so that memory holds few of them."""
        for item in list(session.queue)[: self._most]:
            if item.made is None:
                item.made = self._workers.submit(item.make)
                item.made.add_done_callback(self._wake)

    def _wake(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def _step(self, taken: dict[Session, list[Item]]) -> None:
        times = StageTimes()
        frames: dict[StreamEncoder, list[Frame]] = {}
        failed: dict[Session, Exception] = {}
        for session, items in taken.items():
            try:
                frames[session.encoder] = [item.made.result() for item in items if item.made]
            except CacheFlowError as error:
                failed[session] = error
        spoilt: dict[StreamEncoder, InvalidFeatures] = {}
        encode_frames(self._backend.model, frames, times, failed=spoilt)
        failed |= {session: spoilt[session.encoder] for session in taken if session.encoder in spoilt}
        with self._changed:
            for session, items in taken.items():
                session.taken += items
                if session.error is not None:  # ended meanwhile
                    failed.setdefault(session, session.error)
            for session, why in failed.items():
                self._end(session.encoder.stream_id, session, why)
        if self._on_step:
            count = sum(map(len, frames.values()))
            self._on_step(StepReport(streams=len(frames), frames=count, stages_s=dict(times.seconds)))

    def _finish_ended(self) -> None:
        """Streams whose end was asked for and whose frames are all encoded."""
        with self._changed:
            ending = [own for own in self._sessions.values() if self._must_end(own)]
        spoilt: dict[StreamEncoder, InvalidFeatures] = {}
        final = {own.encoder: () for own in ending if own.end and own.end.final}
        if final:
            encode_frames(self._backend.model, final, StageTimes(), last=True, failed=spoilt)
        with self._changed:
            for session in ending:
                if session.end and session.end.final and session.encoder not in spoilt:
                    session.encoder.finish(session.end.warning, complete=session.end.complete)
                if session.encoder in spoilt:
                    self._end(session.encoder.stream_id, session, spoilt[session.encoder])
                session.ended = True

    def _commit_due(self) -> None:
        """Hand what is encoded to the writers: of every group of which a stream has blocks, or nothing else to do."""
        with self._changed:
            late = perf_counter() - self._committed_at > self._options.commit_interval_s
            groups: dict[int, list[Session]] = {}
            for name, session in self._sessions.items():
                if session.dirty and not session.writing:
                    groups.setdefault(self._group_of(name), []).append(session)
            due = [own for own in groups.values() if late or any(map(self._may_commit, own))]
            if due:
                self._committed_at = perf_counter()
        for sessions in due:  # only this thread touches their encoders
            commits = [session.encoder.commit() for session in sessions]
            with self._changed:
                batch = [session.start_writing() for session in sessions]
            self._writers.submit(self._write, commits, batch)

    def _write(self, commits: list[Commit], batch: list[Writing]) -> None:
        outcomes = commit_apart(self._backend.store, commits)
        with self._changed:
            for own, failure in zip(batch, outcomes, strict=True):
                own.session.writing = False
                name = own.session.encoder.stream_id
                if failure is not None:
                    own.fail(_as_ours(failure))
                    self._end(name, own.session, _as_ours(failure))
                elif own.succeed():
                    self._end(name, own.session, UsageError(f"stream {name!r} was finished: nothing can follow"))
            self._changed.notify_all()


def _as_ours(error: Exception) -> Exception:
    """What a caller elsewhere can make sense of."""
    if isinstance(error, CacheFlowError | StoreError):
        return error
    return ClusterUnavailable(f"the encoder failed ({type(error).__name__}): open the stream anew")
