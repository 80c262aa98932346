"""Which streams of a library are meant; without a model, so that whoever asks need not load one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

from cacheflow_ray.engine.protocol import BlockStore
from cacheflow_ray.errors import NothingToAnswer
from memory_store.records import StreamRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryScope:
    """Streams by their names and labels; by default all there are.

    Args:
        streams: pattern of their names, in which * stands for any characters, ? for one, and [ab] for one of these.
        labels: a stream must have all of them.
        tenant: whose they are; None: whoever's, and names are as the store has them, `tenant:name`.
    """

    streams: str = "*"
    labels: Mapping[str, str] = field(default_factory=dict)
    tenant: str | None = None

    def holds(self, record: StreamRecord) -> bool:
        """Whether the stream is meant."""
        if self.tenant not in (None, record.tenant) or not self.labels.items() <= record.labels.items():
            return False
        name = record.stream_id.removeprefix(f"{self.tenant}:") if self.tenant else record.stream_id
        return fnmatchcase(name, self.streams)

    def __str__(self) -> str:
        """'streams "cam-*" labelled site=north'."""
        named = f" {self.streams!r}" if self.streams != "*" else ""
        labelled = " labelled " + ", ".join(f"{name}={text}" for name, text in self.labels.items())
        return f"streams{named}{labelled if self.labels else ''}"


EVERYWHERE = LibraryScope()

#: Streams by what they are called and labelled, or one by one.
Where: TypeAlias = LibraryScope | Sequence[str]


def records_of(store: BlockStore, where: Where) -> list[StreamRecord]:
    """Raises: StreamNotFound: one that is named. NothingToAnswer: none is like that."""
    if not isinstance(where, LibraryScope):
        return [store.get_stream(name) for name in where]
    records = [record for record in store.list_streams() if where.holds(record)]
    if not records:
        raise NothingToAnswer(f"there are no {where}: see which there are with cacheflow streams list")
    return records


def parted(where: Where) -> tuple[tuple[str, ...], LibraryScope | None]:
    """The streams named, or none and the scope."""
    return ((), where) if isinstance(where, LibraryScope) else (tuple(where), None)
