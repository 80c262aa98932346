"""The frames of one ingest that may have to be sent again, and how much the server lets be on its way."""

from __future__ import annotations

from collections import deque

from cacheflow_ray.actors.api import FramePayload
from cacheflow_ray.errors import LimitExceeded, ServiceError, UsageError


class Window:
    """Frames from the first that is not durable on. It holds as many as the server gave credit for, and one more.

        durable | sent, not durable | to be sent | in the source
                ^ next_seq          ^ the first `_num_sent` frames held

    A frame is let go when an ack says that it is durable; until then a new connection can send it again.
    """

    def __init__(self, stream: str) -> None:
        self.next_seq = 0
        self.last_durable_s: float | None = None
        self._stream = stream
        self._held: deque[FramePayload] = deque()
        self._num_sent = 0
        self._last_seq = -1
        self._frames_left = self._bytes_left = self._bytes_in_all = 0

    def __len__(self) -> int:
        return len(self._held)

    def opened(self, next_seq: int, credit_frames: int, credit_bytes: int) -> None:
        """A connection begins: nothing is on its way, and all that is not durable is to be sent.

        Raises:
            ServiceError: the server lacks frames it had acknowledged, which are held no more.
        """
        if next_seq < self.next_seq:
            raise ServiceError(
                f"stream {self._stream!r}: the server has lost frames {next_seq} to {self.next_seq - 1}, which it had "
                "acknowledged: push the stream anew from there",
                stream=self._stream,
                next_seq=next_seq,
            )
        self._num_sent = 0
        self._frames_left, self._bytes_left, self._bytes_in_all = credit_frames, credit_bytes, credit_bytes
        self._let_go(next_seq)

    def acked(self, next_seq: int, credit_frames: int, credit_bytes: int) -> None:
        """Frames before `next_seq` are durable or left out; so much credit is given back."""
        self._frames_left += credit_frames
        self._bytes_left += credit_bytes
        self._let_go(next_seq)

    @property
    def all_sent(self) -> bool:
        """Whether all that is held has been sent, and the source's next frame may come."""
        return self._num_sent == len(self._held)

    def add(self, frame: FramePayload) -> None:
        """The source's next frame; one that is durable already is passed over. Raises UsageError: it goes back."""
        if frame.seq <= self._last_seq:
            raise UsageError(
                f"stream {self._stream!r}: frame {frame.seq} comes after frame {self._last_seq}: number frames upwards",
                stream=self._stream,
                seq=frame.seq,
            )
        self._last_seq = frame.seq
        if frame.seq >= self.next_seq:
            self._held.append(frame)

    def take(self) -> FramePayload | None:
        """The next frame to send, if there is one and credit for it.

        Raises:
            LimitExceeded: it is larger than all the server lets be on its way.
        """
        if self.all_sent or not self._frames_left:
            return None
        frame = self._held[self._num_sent]
        if len(frame.data) > self._bytes_in_all:
            raise LimitExceeded(
                f"stream {self._stream!r}: frame {frame.seq} is of {len(frame.data)} bytes, and the server lets "
                f"{self._bytes_in_all} be on their way: send smaller or compressed pictures",
                stream=self._stream,
                limit="credit_bytes",
                value=self._bytes_in_all,
            )
        if len(frame.data) > self._bytes_left:
            return None
        self._num_sent += 1
        self._frames_left -= 1
        self._bytes_left -= len(frame.data)
        return frame

    def _let_go(self, next_seq: int) -> None:
        self.next_seq = max(self.next_seq, next_seq)
        while self._held and self._held[0].seq < self.next_seq:
            self.last_durable_s = self._held.popleft().timestamp_s
            self._num_sent = max(0, self._num_sent - 1)
