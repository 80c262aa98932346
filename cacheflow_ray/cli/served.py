"""A service's memory, as commands use a `VideoMemory`; nothing here needs a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from cacheflow_ray.actors.api import Moment
from cacheflow_ray.cli.remote import Link
from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.reports import Evidence, LibraryFound, StreamInfo, StreamMoment
from cacheflow_ray.engine.scope import EVERYWHERE, Where
from cacheflow_ray.service.client import Answer
from cacheflow_ray.types import TimeRange


class ServedMemory:
    """Methods are those of `VideoMemory`, and raise alike; a context manager."""

    def __init__(self, link: Link, *, thumbnails: bool = False) -> None:
        self._client, self._with_thumbnails = link.client(), thumbnails
        self._moments: Callable[[], Sequence[Moment]] = lambda: ()

    def streams(self) -> list[StreamInfo]:
        return [view.info for view in self._client.streams()]

    def stream(self, name: str) -> StreamInfo:
        return self._client.stream(name).info

    def ask(self, stream: str, question: str, *, options: AskOptions | None = None) -> Answer:
        return self._telling(self._client.ask(stream, question, options=options, thumbnails=self._with_thumbnails))

    def ask_library(self, question: str, *, where: Where = EVERYWHERE, options: AskOptions | None = None) -> Answer:
        return self._telling(
            self._client.ask_library(question, where=where, options=options, thumbnails=self._with_thumbnails)
        )

    def search(self, stream: str, text: str, *, top_k: int = 8, time_range: TimeRange | None = None) -> list[Evidence]:
        moments = self._client.search(
            stream, text, top_k=top_k, time_range=time_range, thumbnails=self._with_thumbnails
        )
        self._moments = lambda: moments
        return [moment.evidence for moment in moments]

    def search_library(
        self, text: str, *, where: Where = EVERYWHERE, top_k: int = 20, time_range: TimeRange | None = None
    ) -> LibraryFound:
        found = self._client.search_library(
            text, where=where, top_k=top_k, time_range=time_range, thumbnails=self._with_thumbnails
        )
        self._moments = lambda: found.moments
        moments = tuple(StreamMoment(stream=own.stream_id, evidence=own.evidence) for own in found.moments)
        return LibraryFound(moments=moments, warnings=found.warnings)

    def thumbnails(self, name: str, block_idxs: Sequence[int]) -> list[bytes | None]:
        """Of the last answer's evidence, or the last search's moments, that these blocks belong to: a service sends no
        others.
        """
        moments = [own for own in self._moments() if own.stream_id == name]
        return [
            next((moment.thumbnail or None for moment in moments if idx in moment.evidence.block_idxs), None)
            for idx in block_idxs
        ]

    def _telling(self, answer: Answer) -> Answer:
        self._moments = lambda: answer.moments
        return answer

    def delete(self, name: str) -> None:
        self._client.delete_stream(name)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
