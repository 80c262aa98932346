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
        # The index of mp4 and mov, read at opening, lists every packet there is to come (edit lists applied).
        has_index = "mp4" in container.format.name
        self._expected_packets = min(stream.frames, len(stream.index_entries)) if has_index else 0
        self._declared_end = _declared_end(container, stream, timing)
        self._num_packets = 0
        self._reach = Fraction(0)
        self._shortest: Fraction | None = None
        self._longest = Fraction(0)
        self._last_out: Fraction | None = None

    def add(self, packet: Packet[VideoStream]) -> None:
        """Counts a packet that was read whole; a damaged one has not arrived."""
        if packet.is_corrupt:
            return
        self._num_packets += 1
        length = (packet.duration or 0) * self._timing.tick
        self._shortest = length if self._shortest is None else min(self._shortest, length)
        self._longest = max(self._longest, length)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None:
            self._reach = max(self._reach, stamp * self._timing.tick + (length or self._timing.period))

    def missing(self) -> str | None:
        """One line on what is missing at the end, None if all is there (or nothing was declared).

        Where pictures stand for various times the last one may stand long, so the time may be short by that.
        """
        if self._expected_packets:
            short = self._expected_packets - self._num_packets
            return f"it was cut short: {short} of {self._expected_packets} frames are missing" if short > 0 else None
        slack = self._step / 2 if self._is_steady else 2 * self._step
        if self._declared_end is None or self._reach >= self._declared_end - slack:
            return None
        return f"it was cut short: its container declares video up to {float(self._declared_end):.2f} s"

    @property
    def _step(self) -> Fraction:
        return max(self._longest, self._timing.period)

    @property
    def _is_steady(self) -> bool:
        """Whether each packet tells its length, and all the same one (but for rounding to ticks)."""
        return bool(self._shortest) and self._longest - (self._shortest or 0) <= self._timing.tick

    def came_out(self, frame: VideoFrame) -> None:
        if frame.pts is not None:
            self._last_out = frame.pts * self._timing.tick

    def leaves_gap(self, frame: VideoFrame) -> bool:
        """Whether frames are missing between the last that came out and this one."""
        if frame.pts is None or self._last_out is None:
            return False
        return frame.pts * self._timing.tick - self._last_out > Fraction(3, 2) * self._step


#: Containers that declare no length: what ffmpeg gives as theirs is the last timestamp it finds in the file.
_UNDECLARED = frozenset({"mpegts", "mpeg"})


def _declared_end(container: InputContainer, stream: VideoStream, timing: Timing) -> Fraction | None:
    """Stream time at which the video should end; unknown where only the whole container (with sound) has a length."""
    if container.format.name in _UNDECLARED:
        return None
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * timing.tick
    if container.duration and container.duration > 0 and len(container.streams) == 1:
        return Fraction((container.start_time or 0) + container.duration, 1_000_000)
    return None
