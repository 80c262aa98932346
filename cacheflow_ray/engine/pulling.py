"""Sources read by the service itself: a thread decodes each and pushes its frames to the pool, for as long as it lives.

An address that breaks off is opened anew, each time after a longer wait; a camera goes on in stream time where it left
off. Video files that clients send in pieces are read here, too, through a pipe.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import BinaryIO, cast

from cacheflow_ray.engine.feeding import feed
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.pipe import Pipe
from cacheflow_ray.engine.pool import EncoderPool
from cacheflow_ray.engine.position import End, Position
from cacheflow_ray.engine.resuming import frames_after, is_complete
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.errors import MediaError
from cacheflow_ray.media import Frame, FrameSource, open_source, prefetch

_LOG = logging.getLogger(__name__)

_UNDER_WAY = 16
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


class Puller:
    """Reads one stream's source in a thread of its own, from where the stream stands.

    Args:
        source: an address or path, opened anew when it breaks off; or a pipe, read once.
        epoch: of the session that is open in the pool.

    Attributes:
        done: resolved with the last position once the source is complete; or refused with what ended it.
    """

    def __init__(self, backend: Backend, pool: EncoderPool, stream_id: str, epoch: int, source: str | Pipe) -> None:
        self._backend, self._pool, self._source = backend, pool, source
        self.stream_id, self.epoch = stream_id, epoch
        self.warning: str | None = None
        self.done: Future[Position] = Future()
        self._stopped = threading.Event()
        self._came = 0
        self._thread = threading.Thread(target=self._run, name=f"pull-{stream_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more; what was read is encoded and kept."""
        self._stopped.set()
        if isinstance(self._source, Pipe):
            self._source.abandon()

    def _run(self) -> None:
        try:
            end = self._pull_once() if isinstance(self._source, Pipe) else self._pull_on()
            last = self._pool.finish(self.stream_id, self.epoch, end)
            self.done.set_result(last.result())
        except Exception as error:
            self.done.set_exception(error)

    def _pull_on(self) -> End:
        """Until the source is complete, or nobody wants it any more."""
        wait_s = _FIRST_WAIT_S
        while not self._stopped.is_set():
            came = self._came
            try:
                end = self._pull_once()
                if end.final:
                    return end
                self.warning = end.warning
            except MediaError as error:
                self.warning = str(error)
            wait_s = _FIRST_WAIT_S if self._came > came else min(2 * wait_s, _LONGEST_WAIT_S)
            _LOG.info("stream %s: source opened anew in %.1f s: %s", self.stream_id, wait_s, self.warning)
            self._stopped.wait(wait_s)
        return End(final=False)

    def _pull_once(self) -> End:
        """From where the stream stands to where the source ends. Raises: MediaError: it cannot be opened."""
        spec = StreamSpec.of(self._backend.store.get_stream(self.stream_id))
        with self._open(spec.fps) as source, closing(prefetch(self._frames(source, spec))) as frames:
            feed(
                self._pool, self.stream_id, self.epoch, self._counted(frames), at_once=1, under_way=_UNDER_WAY,
                wanted=lambda: not self._stopped.is_set(),
            )  # fmt: skip
            complete = isinstance(self._source, Pipe) or is_complete(source)
            return End(final=complete and not self._stopped.is_set(), warning=source.report.warning)

    def _counted(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self._came += 1
            yield frame

    def _open(self, fps: float | None) -> FrameSource:
        if not isinstance(self._source, Pipe):
            return open_source(self._source, fps=fps)
        try:
            return open_source(cast(BinaryIO, self._source), fps=fps)
        except MediaError:
            whole = self._source.whole()
            if whole is None:
                raise
            return open_source(cast(BinaryIO, whole), fps=fps)

    def _frames(self, source: FrameSource, spec: StreamSpec) -> Iterator[Frame]:
        stored = self._backend.store.load_state(self.stream_id)
        state = None
        if stored is not None and stored.payload:
            state = EncoderState.from_bytes(stored.payload, self._backend.model.device)
        if isinstance(self._source, Pipe):
            seq = state.next_seq if state else 0
            return (frame for frame in source if frame.seq >= seq)
        return frames_after(source, spec, state) if state else iter(source)
