"""Opening a source, whatever it is, as a stream of sampled frames."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from itertools import chain, takewhile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from cacheflow_ray.errors import BrokenMedia, InvalidConfig, SourceNotFound, UnsupportedMedia
from cacheflow_ray.media.frames import MAX_PIXELS, DecodeReport, Frame, Picture, Reader, SourceInfo
from cacheflow_ray.media.identity import Ends, folder_identity, without_password
from cacheflow_ray.media.images import ImageReader, is_image, list_images
from cacheflow_ray.media.sample import Grid
from cacheflow_ray.media.video import Target, VideoReader

#: Two times are the same picture's when they differ by no more; no container's ticks are as small.
_SAME_S = 1e-7
#: Pictures of some files can only be decoded from a keyframe before the nearest: seconds to try further back.
_BACK_S = (0.0, 2.0, 20.0)

_SCHEMES = frozenset({"http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "rtp", "udp", "tcp"})
#: A bare motion-JPEG stream begins as a JPEG image does; its name tells.
_MOTION_JPEG = (".mjpeg", ".mjpg")


class FrameSource:
    """Iterator over the sampled frames of a source; a context manager that closes it.

    The first picture is decoded when it is made, so that a source that cannot be decoded fails there. After that no
    error is raised: a source that breaks off ends, and `report` says where and why. Single-threaded.

    Raises:
        BrokenMedia: nothing could be decoded.
    """

    def __init__(
        self, reader: Reader, *, fps: float | None, start_seq: int = 0, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._grid = Grid(fps, reader.tick_s)
        self._start_seq = start_seq
        self._report = DecodeReport()
        pictures = reader.pictures()
        try:
            first = next(pictures, None)
            if first is None:
                raise _nothing_decoded(reader)
            height, width, _ = first.render().shape
        except BaseException:
            reader.close()
            raise
        self._info = replace(reader.info, width=width, height=height)
        self._first_s = first.timestamp_s
        self._frames = self._sample(chain((first,), self._while_wanted(pictures)))

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def report(self) -> DecodeReport:
        """How decoding went up to the frame given last."""
        return self._report

    def go_on_at(self, seq: int, timestamp_s: float) -> bool:
        """Go on at a frame of a full run, known by its number and time, without reading all before it.

        The frames that follow are those of the full run, pixel for pixel. False where it is not found that way (some
        containers can only be read from their start, some frames near it neither): the iteration is over then.
        """
        self._frames.close()
        for back_s in _BACK_S:
            pictures = self._while_wanted(self._reader.pictures_from(max(0.0, timestamp_s - back_s)))
            for picture in pictures:
                if picture.timestamp_s >= timestamp_s - _SAME_S:
                    break
            else:
                continue
            if picture.timestamp_s <= timestamp_s + _SAME_S:
                self._grid.go_on(self._first_s)
                self._frames = self._sample(chain((picture,), pictures), seq=seq)
                return True
        return False

    def close(self) -> None:
        """Ends the iteration and releases the file. May be called again."""
        self._frames.close()
        self._reader.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _while_wanted(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        return takewhile(lambda _: self._wanted(), pictures)

    def _sample(self, pictures: Iterator[Picture], seq: int = 0) -> Generator[Frame, None, None]:
        """`seq`: of the first picture to be taken."""
        last_s = -math.inf
        for picture in pictures:
            now_s = picture.timestamp_s
            self._count(decoded=1)
            if now_s <= last_s:
                self._count(skipped_non_monotonic=1)
                continue
            last_s = now_s
            if not self._grid.takes(now_s):
                continue
            self._count(sampled=1)
            if seq >= self._start_seq:
                yield Frame(seq=seq, timestamp_s=now_s, image=picture.render())
            seq += 1
        self._count()
        if self._reader.damage.reason is not None:
            self._report = replace(self._report, broken_at_s=last_s, reason=self._reader.damage.reason)

    def _count(self, *, decoded: int = 0, sampled: int = 0, skipped_non_monotonic: int = 0) -> None:
        report = self._report
        self._report = DecodeReport(
            decoded=report.decoded + decoded,
            sampled=report.sampled + sampled,
            skipped_non_monotonic=report.skipped_non_monotonic + skipped_non_monotonic,
            errors=self._reader.damage.errors,
        )


def open_source(
    source: str | Path | BinaryIO,
    *,
    fps: float | None,
    start_seq: int = 0,
    max_pixels: int = MAX_PIXELS,
    wanted: Callable[[], bool] = lambda: True,
) -> FrameSource:
    """Opens a video file, an image, a folder of images, an address or a binary file object.

    Args:
        source: a file object is read from its start and stays the caller's to close.
        fps: frames per second to sample; None takes every frame. Of a folder it is the rate the images were taken at
            (None: 1 per second).
        start_seq: the first frame to give: exactly the frames `seq >= start_seq` of a full run come out.
        max_pixels: largest picture accepted, width times height.
        wanted: asked at every picture; once it says no, the source ends.

    Raises:
        SourceNotFound: nothing there, or it may not be read or reached.
        UnsupportedMedia: empty, not a video, no pictures in it, no decoder for its codec, or pictures too large.
        BrokenMedia: a video, but nothing of it can be decoded.
        InvalidConfig: fps, start_seq or max_pixels makes no sense.
    """
    if fps is not None and not (fps > 0 and math.isfinite(fps)):
        raise InvalidConfig(f"fps is {fps}: give frames per second above 0, or none for every frame", fps=fps)
    if start_seq < 0 or max_pixels < 1:
        raise InvalidConfig(f"start_seq {start_seq} must be 0 or more, max_pixels {max_pixels} 1 or more")
    reader = _open_reader(source, fps or 1.0, max_pixels)
    own_fps = None if isinstance(reader, ImageReader) else fps
    return FrameSource(reader, fps=own_fps, start_seq=start_seq, wanted=wanted)


def identity_of(path: str | Path) -> str:
    """`SourceInfo.identity` of a file or folder of images, without decoding it; "" where there is neither."""
    place = Path(path)
    try:
        if place.is_dir():
            return folder_identity(list_images(place))
        if not place.is_file():
            return ""
        with place.open("rb") as file:
            return Ends.of(file).identity()
    except OSError:
        return ""


def _open_reader(source: str | Path | BinaryIO, image_fps: float, max_pixels: int) -> Reader:
    if not isinstance(source, str | os.PathLike):
        return _open_file(source, str(getattr(source, "name", "stream")), max_pixels)
    if isinstance(source, str) and "://" in source:
        return VideoReader(_address(source), max_pixels=max_pixels)
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _open_folder(path, image_fps, max_pixels)
        if not stat.S_ISREG(mode):  # a pipe: reading its head would eat it
            uri = str(path)
            target = Target(handle=f"file:{path}", uri=uri, identity=f"uri:{uri}")
            return VideoReader(target, max_pixels=max_pixels)
        with path.open("rb") as file:
            return _open_file(file, str(path), max_pixels, path=path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"no file or folder at {str(path)!r}: check the path", uri=str(path)) from error
    except (OSError, ValueError) as error:
        raise SourceNotFound(f"{str(path)!r} cannot be read ({error}): check path and permissions") from error


def _address(source: str) -> Target:
    scheme = source.partition("://")[0].lower()
    uri = without_password(source)
    if scheme not in _SCHEMES:
        known = ", ".join(sorted(_SCHEMES))
        raise UnsupportedMedia(f"{uri!r}: addresses of {scheme!r} are not read, only {known}; or give a path", uri=uri)
    return Target(handle=source, uri=uri, identity=f"uri:{uri}", is_address=True)


def _open_file(file: BinaryIO, uri: str, max_pixels: int, path: Path | None = None) -> Reader:
    """A reader of a file object; of the file at `path` by name where there is one, which ffmpeg reads faster."""
    if not file.seekable():
        return VideoReader(Target(handle=file, uri=uri, identity=f"uri:{uri}"), max_pixels=max_pixels)
    ends = Ends.of(file)
    identity = ends.identity()
    if not ends.num_bytes:
        raise UnsupportedMedia(f"{uri!r} is empty (0 bytes): copy or record it again", uri=uri)
    if is_image(ends.head) and not uri.lower().endswith(_MOTION_JPEG):
        info = _images_info(uri, "image", identity, num_frames=1, fps=1.0)
        return ImageReader([path or file], info, fps=1.0, max_pixels=max_pixels)
    # "file:" keeps a colon in a name from being taken for a protocol.
    target = Target(handle=f"file:{path}" if path else file, uri=uri, identity=identity, ends=ends)
    return VideoReader(target, max_pixels=max_pixels)


def _open_folder(folder: Path, fps: float, max_pixels: int) -> Reader:
    uri = str(folder)
    paths = list_images(folder)
    if not paths:
        raise UnsupportedMedia(f"{uri!r} is a folder without images (jpg, png, webp, bmp): give one with", uri=uri)
    info = _images_info(uri, "folder", folder_identity(paths), num_frames=len(paths), fps=fps)
    return ImageReader(paths, info, fps=fps, max_pixels=max_pixels)


def _images_info(uri: str, container: str, identity: str, *, num_frames: int, fps: float) -> SourceInfo:
    return SourceInfo(
        uri=uri,
        container=container,
        codec="image",
        width=0,
        height=0,
        duration_s=num_frames / fps,
        avg_fps=fps,
        num_frames=num_frames,
        identity=identity,
    )


def _nothing_decoded(reader: Reader) -> BrokenMedia:
    uri = reader.info.uri
    why = reader.damage.reason or f"{reader.damage.errors} damaged pieces"
    return BrokenMedia(f"{uri!r}: not one frame could be decoded ({why}): copy or record it again", uri=uri)
