"""What is sent on a connection, in order and within the server's credits: frames, or the pieces of a file."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Protocol

from cacheflow_ray.service.client.sources import Payloads
from cacheflow_ray.service.client.window import Window
from cacheflow_ray.service.messages import Granted, write_frame
from cacheflow_ray.service.v1.ingest_pb2 import ContainerChunk, IngestRequest

#: Most that is read and sent of a file at once.
CHUNK_BYTES = 256 << 10


class Feed(Protocol):
    """What one ingest sends. `opened` begins every connection, the first too."""

    def opened(self, granted: Granted) -> None:
        """Begin again at what the server does not have. Raises ServiceError: it is not here any more."""

    def acked(self, granted: Granted) -> None:
        """So much is durable, and so much credit is given back."""

    async def next(self) -> IngestRequest | None:
        """The next message, once there is credit for it; None: all has been sent. May be cancelled at any time."""

    async def settled(self) -> None:
        """Returns once nothing is on its way."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""

    @property
    def position_s(self) -> float | None:
        """Stream time of what is durable, in seconds; None: not known."""

    async def close(self) -> None:
        """Let go of threads."""


class FrameFeed:
    """Frames of a source; those that are not durable yet are kept to be sent again."""

    def __init__(self, stream: str, payloads: Payloads) -> None:
        self._window, self._payloads = Window(stream), payloads
        self._ended = False
        self._changed = asyncio.Event()

    def opened(self, granted: Granted) -> None:
        self._window.opened(granted.position.next_seq, granted.credit_frames, granted.credit_bytes)

    def acked(self, granted: Granted) -> None:
        self._window.acked(granted.position.next_seq, granted.credit_frames, granted.credit_bytes)
        self._changed.set()

    async def next(self) -> IngestRequest | None:
        while (payload := self._window.take()) is None:
            if not self._window.all_sent:
                await self._change()  # for credit
            elif self._ended:
                return None
            else:
                await self._pull()
        return IngestRequest(frame=write_frame(payload))

    async def settled(self) -> None:
        while len(self._window):
            await self._change()

    @property
    def is_idle(self) -> bool:
        return not len(self._window)

    @property
    def position_s(self) -> float | None:
        return self._window.last_durable_s

    async def close(self) -> None:
        await self._payloads.close()

    async def _pull(self) -> None:
        payload = await self._payloads.next(self._window.next_seq)
        if payload is None:
            self._ended = True
        else:
            self._window.add(payload)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class FileFeed:
    """A video file as it is. Every connection begins at its first byte: the server knows which frames it has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cacheflow-file")
        self._offset = self._bytes_left = self._on_way = 0
        self._changed = asyncio.Event()

    def opened(self, granted: Granted) -> None:
        self._offset = self._on_way = 0
        self._bytes_left = granted.credit_bytes

    def acked(self, granted: Granted) -> None:
        self._bytes_left += granted.credit_bytes
        self._on_way -= granted.credit_bytes
        self._changed.set()

    async def next(self) -> IngestRequest | None:
        while self._bytes_left <= 0:
            await self._change()
        offset, num_bytes = self._offset, min(CHUNK_BYTES, self._bytes_left)
        data = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, offset, num_bytes)
        if not data:
            return None
        self._offset += len(data)
        self._bytes_left -= len(data)
        self._on_way += len(data)
        return IngestRequest(chunk=ContainerChunk(offset=offset, data=data))

    async def settled(self) -> None:
        while not self.is_idle:
            await self._change()

    @property
    def is_idle(self) -> bool:
        return self._on_way <= 0

    @property
    def position_s(self) -> None:
        return None

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)

    def _read(self, offset: int, num_bytes: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(num_bytes)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
