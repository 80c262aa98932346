"""From a decoder's timestamps to seconds since the start of the container."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

#: What is assumed of a stream that tells neither timestamps nor a rate.
_FALLBACK_RATE = Fraction(25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What a container says about the times of its video stream; all exact, in seconds."""

    tick: Fraction
    period: Fraction
    origin: Fraction | None
    has_pts: bool

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream) -> Timing:
        # AVI stores decode times only; what a demuxer guesses from them is out of order wherever there are B-frames.
        has_pts = container.format.name != "avi"
        tick = stream.time_base or Fraction(1, 90_000)
        origin = None
        if has_pts and container.start_time is not None:
            origin = Fraction(container.start_time, 1_000_000)
            own = None if stream.start_time is None else stream.start_time * tick
            # The container's start is rounded to microseconds: where it is the video's own, take that exactly.
            if own is not None and abs(own - origin) <= Fraction(1, 1_000_000):
                origin = own
        return cls(tick=tick, period=1 / (stream.average_rate or _FALLBACK_RATE), origin=origin, has_pts=has_pts)


class Clock:
    """Gives each decoded frame, in the order of coming out, its time; counts frames on where a time is missing.

    Attributes:
        origin: the time that counts as 0; None until the first frame, where the container does not tell.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self.origin = timing.origin
        self._last: Fraction | None = None

    def time_of(self, frame: VideoFrame) -> float:
        """Seconds since the container's start, never negative."""
        stamp = frame.pts if self._timing.has_pts else frame.dts
        if stamp is None and self._timing.has_pts:
            stamp = frame.dts
        if stamp is not None:
            time = stamp * self._timing.tick
        elif self._last is not None:
            time = self._last + self._timing.period
        else:
            time = self.origin or Fraction(0)
        if self.origin is None:
            self.origin = time
        self._last = time
        return float(max(Fraction(0), time - self.origin))
