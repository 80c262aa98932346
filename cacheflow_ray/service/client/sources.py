"""What a client may push, as payloads: frames of its own, or a source that is opened and sampled here."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeGuard, TypeVar

from cacheflow_ray.actors.api import FramePayload, PayloadKind
from cacheflow_ray.errors import UnsupportedMedia

T = TypeVar("T")


class FrameLike(Protocol):
    """A frame of the caller's: `media.Frame` is one.

    `image`: uint8 [height, width, 3] RGB, or bytes of a JPEG, PNG, WebP or BMP. Numbers count upwards, gaps are
    allowed; times are seconds from 0 on and never go back.
    """

    @property
    def seq(self) -> int: ...
    @property
    def timestamp_s(self) -> float: ...
    @property
    def image(self) -> Any: ...


File: TypeAlias = str | Path | BinaryIO
Frames: TypeAlias = Iterable[FrameLike] | AsyncIterable[FrameLike]
Source: TypeAlias = File | Frames


def is_file(source: Source) -> TypeGuard[File]:
    """Whether it is a path, an address or an open file, not frames."""
    return isinstance(source, str | Path) or hasattr(source, "read")


def payload_of(frame: FrameLike, kind: PayloadKind, quality: int) -> FramePayload:
    """The frame as it is sent: RGB as it is, or as a JPEG of this quality (1 to 100); an encoded image as it is.

    Raises:
        UnsupportedMedia: its image is neither, or an encoded one where raw RGB was promised.
    """
    image, width, height = frame.image, 0, 0
    if isinstance(image, bytes | bytearray | memoryview):
        if kind is PayloadKind.RGB:
            raise UnsupportedMedia(f"frame {frame.seq} is an encoded image, not RGB: send it as IMAGE", seq=frame.seq)
        data = bytes(image)
    elif not _is_rgb(image):
        raise UnsupportedMedia(f"frame {frame.seq}: give uint8 [H, W, 3] RGB, or an encoded image", seq=frame.seq)
    elif kind is PayloadKind.RGB:
        (height, width, _), data = image.shape, image.tobytes()
    else:
        data = _jpeg(image, quality)
    return FramePayload(seq=frame.seq, timestamp_s=frame.timestamp_s, data=data, width=width, height=height)


def _is_rgb(image: Any) -> bool:
    shape = tuple(getattr(image, "shape", ()))
    return getattr(image, "dtype", None) == "uint8" and len(shape) == 3 and shape[2] == 3 and all(shape)


def _jpeg(image: Any, quality: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, format="JPEG", quality=quality)
    return out.getvalue()


class Payloads:
    """Frames one at a time, pulled and encoded in a thread of their own, where a decoder may take its time.

    `next` may be cancelled and called again: the frame it waited for is not lost.
    """

    def __init__(self, frames: Frames, encode: Callable[[FrameLike], FramePayload]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cacheflow-frames")
        self._frames = aiter(frames) if isinstance(frames, AsyncIterable) else _off_loop(frames, self._thread)
        self._encode = encode
        self._pull: asyncio.Task[FramePayload | None] | None = None

    async def next(self, from_seq: int) -> FramePayload | None:
        """The next frame from `from_seq` on; None: there is none. Raises what iterating or encoding them raises."""
        if self._pull is None:
            self._pull = asyncio.create_task(self._next(from_seq))
        payload = await asyncio.shield(self._pull)
        self._pull = None
        return payload

    async def close(self) -> None:
        """Stops pulling; waits for the frame that is being made, if one is."""
        if self._pull is not None:
            self._pull.cancel()
            await asyncio.wait((self._pull,))
        await asyncio.to_thread(self._thread.shutdown)

    async def _next(self, from_seq: int) -> FramePayload | None:
        async for frame in self._frames:
            if frame.seq >= from_seq:
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, frame)
        return None


async def _off_loop(items: Iterable[T], thread: Executor) -> AsyncIterator[T]:
    loop, iterator, end = asyncio.get_running_loop(), iter(items), object()
    while (item := await loop.run_in_executor(thread, next, iterator, end)) is not end:
        yield item  # type: ignore[misc]
