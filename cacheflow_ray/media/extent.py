"""Whether a stream ended where its container says it ends."""

from __future__ import annotations

from fractions import Fraction

from av import Packet, VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from cacheflow_ray.media.clock import Timing


class Extent:
    """Compares what was declared (duration, number of frames) with what arrived. Times are stream times, exact."""

    def __init__(self, container: InputContainer, stream: VideoStream, timing: Timing) -> None:
        self._timing = timing
        self._declared_frames = stream.frames
        self._declared_end = _declared_end(container, stream, timing)
        self._num_packets = 0
        self._reach = Fraction(0)
        self._longest = timing.period
        self._last_out: Fraction | None = None

    def add(self, packet: Packet[VideoStream]) -> None:
        """Counts a packet that was read whole; a damaged one has not arrived."""
        if packet.is_corrupt:
            return
        self._num_packets += 1
        stamp = packet.pts if packet.pts is not None else packet.dts
        length = max((packet.duration or 0) * self._timing.tick, self._timing.period)
        self._longest = max(self._longest, length)
        if stamp is not None:
            self._reach = max(self._reach, stamp * self._timing.tick + length)

    def missing(self) -> str | None:
        """One line on what is missing at the end, None if all is there (or nothing was declared).

        Edit lists hide packets, and a last picture may stand long: only a stream short of time is called cut, and one
        short of hardly any time only if it is short of frames too.
        """
        short = self._declared_frames - self._num_packets
        if self._declared_end is None or (self._declared_frames and short <= 0):
            return None
        late = self._declared_end - self._reach
        if late > 2 * self._longest:
            return f"it was cut short: its container declares video up to {float(self._declared_end):.2f} s"
        if short > 0 and late > self._timing.period / 2:
            return f"it was cut short: the last {short} of {self._declared_frames} frames are missing"
        return None

    def came_out(self, frame: VideoFrame) -> None:
        if frame.pts is not None:
            self._last_out = frame.pts * self._timing.tick

    def leaves_gap(self, frame: VideoFrame) -> bool:
        """Whether frames are missing between the last that came out and this one."""
        if frame.pts is None or self._last_out is None:
            return False
        return frame.pts * self._timing.tick - self._last_out > Fraction(3, 2) * self._longest


def _declared_end(container: InputContainer, stream: VideoStream, timing: Timing) -> Fraction | None:
    """Stream time at which the video should end; unknown where only the whole container (with sound) has a length."""
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * timing.tick
    if container.duration and container.duration > 0 and len(container.streams) == 1:
        return Fraction((container.start_time or 0) + container.duration, 1_000_000)
    return None
