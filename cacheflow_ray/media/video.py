"""Decoding of containers (files, file objects, addresses) through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import BinaryIO

import av
from av import Packet, VideoFrame
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import PictureType
from av.video.stream import VideoStream

from cacheflow_ray.errors import UnsupportedMedia
from cacheflow_ray.media.clock import Clock, Timing
from cacheflow_ray.media.extent import Extent
from cacheflow_ray.media.faults import READ_ERRORS, naming_errors
from cacheflow_ray.media.frames import Damage, Picture, SourceInfo
from cacheflow_ray.media.identity import Ends
from cacheflow_ray.media.orient import to_rgb

#: Seconds an address may take to answer, and to deliver the next piece.
_TIMEOUTS_S = (15.0, 30.0)
#: Frame threads hold a picture each; many streams are decoded at once, so one of them stays modest.
_MAX_THREADS = 4
#: Demuxers that show any text or binary file as a picture of characters.
_TEXT_DEMUXERS = frozenset({"tty", "bin", "xbin", "adf", "idf"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to open: `handle` is ffmpeg's url or a binary file object; `uri` and `identity` are for people."""

    handle: str | BinaryIO
    uri: str
    identity: str
    is_address: bool = False
    ends: Ends | None = None


class VideoReader:
    """Pictures of the first video stream of a container, in presentation order. Damaged ones are left out and counted.

    Raises:
        SourceNotFound, UnsupportedMedia, BrokenMedia: it cannot be opened.
    """

    def __init__(self, target: Target, *, max_pixels: int) -> None:
        with naming_errors(target.uri, is_address=target.is_address, head=target.ends.head if target.ends else b""):
            self._container = av.open(
                target.handle,
                mode="r",
                metadata_errors="replace",
                timeout=_TIMEOUTS_S if target.is_address else None,
            )
        try:
            self._stream = _video_stream(self._container, target.uri)
            _configure(self._stream, target, max_pixels)
            self._timing = Timing.of(self._container, self._stream)
            self._extent = Extent(self._container, self._stream, self._timing)
        except BaseException:
            self._container.close()
            raise
        self.damage = Damage()
        self._clock = Clock(self._timing)
        self.tick_s = float(self._timing.tick)
        self.info = _describe(self._container, self._stream, target)

    def pictures(self) -> Iterator[Picture]:
        return map(self._picture, self._frames())

    def pictures_from(self, timestamp_s: float) -> Iterator[Picture]:
        return map(self._picture, self._frames_from(timestamp_s))

    def _picture(self, frame: VideoFrame) -> Picture:
        return Picture(timestamp_s=self._clock.time_of(frame), render=partial(to_rgb, frame))

    def close(self) -> None:
        self._container.close()

    def _frames(self) -> Iterator[VideoFrame]:
        """Whole frames only: a packet the demuxer marks as damaged is not decoded, so what comes out can be trusted."""
        last_is_damaged = False
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0 and packet.dts is None:
                    break  # the demuxer's flush packet: flushing is done below, also after a read error
                self._extent.add(packet)
                errors = self.damage.errors
                yield from self._decode(packet)
                last_is_damaged = self.damage.errors > errors
        except READ_ERRORS as error:
            self.damage.reason = f"reading failed: {error}"
        yield from self._flush(last_is_damaged)

    def _frames_from(self, timestamp_s: float) -> Iterator[VideoFrame]:
        """From the keyframe before a time on; nothing where none is found that stands on its own.

        What is shown before the keyframe and comes out after it is left out: it may want pictures that were not read.
        """
        if not self._timing.has_pts:
            return  # decode times do not tell which picture it is that comes out first
        stamp = round((Fraction(timestamp_s) + (self._clock.origin or 0)) / self._timing.tick)
        begun = False
        try:
            self._container.seek(stamp, stream=self._stream)
            for key, frame in self._frames_since_key():
                if frame.pts is not None and frame.pts < key:
                    continue
                # A stream refreshed bit by bit has "keyframes" a player may begin at before all of the picture is good.
                if not begun and (frame.pts, frame.pict_type) != (key, PictureType.I):
                    return
                begun = True
                yield frame
        except READ_ERRORS:
            return  # what was read so far is right; who looks for more sees that it is missing

    def _frames_since_key(self) -> Iterator[tuple[int, VideoFrame]]:
        """What comes out from the next keyframe on, and that keyframe's time in ticks."""
        key: int | None = None
        for packet in self._container.demux(self._stream):
            if packet.size == 0 and packet.dts is None:
                break
            if key is None and packet.is_keyframe:
                key = packet.pts
            if key is not None:
                yield from ((key, frame) for frame in self._decode(packet))
        if key is not None:
            yield from ((key, frame) for frame in self._decode(None))

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[VideoFrame]:
        if packet is not None and packet.is_corrupt:
            self.damage.errors += 1
            return
        try:
            frames = self._stream.codec_context.decode(packet)
        except FFmpegError:
            self.damage.errors += 1
            return
        for frame in frames:
            if frame.is_corrupt:
                self.damage.errors += 1
            else:
                yield frame

    def _flush(self, last_is_damaged: bool) -> Iterator[VideoFrame]:
        """The frames the decoder still holds; of a stream cut short some in between never came: stop at the gap."""
        errors = self.damage.errors
        frames = list(self._decode(None))
        missing = self._extent.missing()
        self.damage.reason = self.damage.reason or missing
        is_cut = last_is_damaged or self.damage.reason is not None or self.damage.errors > errors
        for frame in frames:
            if is_cut and self._extent.leaves_gap(frame):
                return
            self._extent.came_out(frame)
            yield frame


def _video_stream(container: InputContainer, uri: str) -> VideoStream:
    """The first stream that is moving pictures (not a music file's cover)."""
    if container.format.name in _TEXT_DEMUXERS:
        raise UnsupportedMedia(f"{uri!r} is text, not a video: give a video or image file", uri=uri)
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = " and ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise UnsupportedMedia(f"{uri!r} holds no video, only {kinds}: give a file with pictures", uri=uri)
    return streams[0]


def _configure(stream: VideoStream, target: Target, max_pixels: int) -> None:
    context, uri = stream.codec_context, target.uri
    if context is None:  # then ffmpeg's binding knows not even the codec's name
        codec = (target.ends.video_codec_tag() if target.ends else None) or "(unknown)"
        raise UnsupportedMedia(
            f"{uri!r}: no decoder for its video codec {codec} here: convert it to H.264", uri=uri, codec=codec
        )
    if context.width * context.height > max_pixels:
        size = f"{context.width}x{context.height}"
        raise UnsupportedMedia(f"{uri!r} is {size}, above the limit of {max_pixels} pixels: scale it down", uri=uri)
    # The limit holds for a size that grows in mid-stream too: such pictures fail in the decoder and are counted.
    context.options = {"max_pixels": str(max_pixels)}
    context.thread_type = "AUTO"
    context.thread_count = _MAX_THREADS


def _describe(container: InputContainer, stream: VideoStream, target: Target) -> SourceInfo:
    rate = stream.average_rate
    duration = container.duration
    return SourceInfo(
        uri=target.uri,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        duration_s=duration / 1e6 if duration is not None and duration > 0 else None,
        avg_fps=float(rate) if rate else None,
        num_frames=stream.frames or None,
        identity=target.identity,
    )
