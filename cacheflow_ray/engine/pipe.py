"""A video file that comes in pieces, as a file to read from while it comes."""

from __future__ import annotations

import io
import tempfile
import threading
from collections import deque
from types import TracebackType

from cacheflow_ray.errors import LimitExceeded, UsageError


class Pipe(io.RawIOBase):
    """Pieces in, a stream of bytes out: for one writing and one reading thread.

    What went through is kept in a temporary file, for containers that can only be read once they are whole (an mp4
    whose index stands at its end).

    Args:
        room: bytes that may wait to be read. most: bytes of the whole file.
    """

    name = "pushed"

    def __init__(self, room: int, most: int) -> None:
        super().__init__()
        self._room, self._most = room, most
        self._pieces = deque[memoryview]()
        self._waiting = 0
        self._through = tempfile.SpooledTemporaryFile(max_size=1 << 20)  # noqa: SIM115 - closed with the pipe
        self._offset = 0
        self._ended = self._gone = False
        self._changed = threading.Condition()

    def put(self, offset: int, data: bytes) -> None:
        """Take a piece; waits until there is room.

        Raises:
            UsageError: it does not follow the one before. LimitExceeded: the file is too large.
        """
        with self._changed:
            if offset != self._offset:
                raise UsageError(f"a piece begins at byte {offset}, and {self._offset} is next: send from there")
            if offset + len(data) > self._most:
                raise LimitExceeded(
                    f"a pushed file may have {self._most} bytes: push a longer video in parts, or its frames",
                    limit="max_container_bytes", value=self._most,
                )  # fmt: skip
            self._changed.wait_for(lambda: self._waiting < self._room or self._gone)
            self._offset += len(data)
            if data and not self._gone:
                self._through.write(data)
                self._pieces.append(memoryview(data))
                self._waiting += len(data)
            self._changed.notify_all()

    def end(self) -> None:
        """No more is to come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: object) -> int:
        """Waits until there is something; 0 at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._ended or self._gone)
            if not self._pieces or self._gone:
                return 0
            piece = self._pieces.popleft()
            count = min(len(piece), len(view))
            view[:count] = piece[:count]
            if count < len(piece):
                self._pieces.appendleft(piece[count:])
            self._waiting -= count
            self._changed.notify_all()
            return count

    def whole(self) -> tempfile.SpooledTemporaryFile[bytes] | None:
        """All of the file, once it has come; None when it never will."""
        with self._changed:
            self._pieces.clear()
            self._waiting = 0
            self._changed.notify_all()
            while not (self._ended or self._gone):
                self._changed.wait()
                self._pieces.clear()
                self._waiting = 0
                self._changed.notify_all()
            self._through.seek(0)
            return None if self._gone else self._through

    def abandon(self) -> None:
        """Nobody reads or writes any more: who waits goes on."""
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.abandon()
        self._through.close()
        super().__exit__(kind, error, at)
