"""Decoding ahead of the consumer, in a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable

from cacheflow_ray.media.frames import Frame


class _Buffer:
    """Frames between the decoding thread and the consumer; bounded in number and bytes.

    `end` is set once, when the last frame is in: the error to raise in the consumer, or None.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._num_bytes = 0
        self._ended = False
        self._error: BaseException | None = None
        self._stopped = False
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> bool:
        """Waits for room; False when the consumer is gone. A frame above the limit passes when it is alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._frames or self._has_room(frame))
            if self._stopped:
                return False
            self._frames.append(frame)
            self._num_bytes += frame.image.nbytes
            self._changed.notify_all()
            return True

    def _has_room(self, frame: Frame) -> bool:
        return len(self._frames) < self._max_frames and self._num_bytes + frame.image.nbytes <= self._max_bytes

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self) -> Frame | None:
        """The next frame; None at the end. Raises what the decoding thread raised, after its last frame."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended)
            if not self._frames:
                if self._error is not None:
                    raise self._error
                return None
            frame = self._frames.popleft()
            self._num_bytes -= frame.image.nbytes
            self._changed.notify_all()
            return frame

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def prefetch(
    frames: Iterable[Frame], *, max_frames: int = 16, max_bytes: int = 256 << 20
) -> Generator[Frame, None, None]:
    """The same frames, decoded ahead in a thread of their own: decoding releases the GIL, so it overlaps the model.

    Holds at most `max_frames` frames and `max_bytes` bytes (one frame at least), beside the one being decoded. An error
    of `frames` is raised here, after the frames before it. Closing the generator, or leaving it, stops and joins the
    thread; `frames` itself stays the caller's to close.
    """
    buffer = _Buffer(max_frames, max_bytes)
    thread = threading.Thread(target=_fill, args=(buffer, frames), name="cacheflow-decode", daemon=True)
    thread.start()
    try:
        while (frame := buffer.take()) is not None:
            yield frame
    finally:
        buffer.stop()
        thread.join()


def _fill(buffer: _Buffer, frames: Iterable[Frame]) -> None:
    error: BaseException | None = None
    try:
        for frame in frames:
            if not buffer.put(frame):
                break
    except BaseException as raised:  # whatever it is, it belongs to the consumer, not to this thread's stderr
        error = raised
    buffer.end(error)
