"""Questions to several streams at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cacheflow_ray.config import AskOptions
from cacheflow_ray.engine.reports import Evidence
from cacheflow_ray.errors import NothingToAnswer

if TYPE_CHECKING:
    from cacheflow_ray.engine.memory import VideoMemory

Found = tuple[str, Evidence]


def search_all(memory: VideoMemory, streams: Sequence[str], text: str, options: AskOptions) -> list[Found]:
    """Moments of all the streams, best first, `options.top_k` of them; streams that hold nothing yet are passed by.

    Raises:
        as `VideoMemory.search`; NothingToAnswer: none of them holds anything.
    """
    found: list[Found] = []
    empty: NothingToAnswer | None = None
    for stream in streams:
        try:
            moments = memory.search(stream, text, top_k=options.top_k, time_range=options.time_range)
        except NothingToAnswer as error:
            empty = error
            continue
        found += [(stream, moment) for moment in moments]
    if empty is not None and not found:
        raise empty
    return sorted(found, key=lambda own: -(own[1].score or 0.0))[: options.top_k]


def best_stream(memory: VideoMemory, streams: Sequence[str], question: str, options: AskOptions) -> str:
    """The stream with the best evidence for a question; the first where there is none. Raises: as `search_all`."""
    if len(streams) == 1:
        return streams[0]
    with suppress(NothingToAnswer):
        found = search_all(memory, streams, question, options)
        if found:
            return found[0][0]
    return streams[0]
