"""Which streams of a library are meant; without a model, so that whoever asks need not load one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TypeAlias

from cacheflow_ray.engine.protocol import BlockStore
from cacheflow_ray.errors import NothingToAnswer
from memory_store.records import StreamRecord, TimeRange

#: The label by which a stream tells when it began, its time 0: ISO 8601, in UTC where no offset is given.
START = "start"


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryScope:
    """Streams by their names and labels; by default all there are.

    Args:
        streams: pattern of their names, in which * stands for any characters, ? for one, and [ab] for one of these.
        labels: a stream must have all of them.
        tenant: whose they are; None: whoever's, and names are as the store has them, `tenant:name`.
        recorded: only what was recorded then, in Unix seconds; of streams whose label START tells when they began.
    """

    streams: str = "*"
    labels: Mapping[str, str] = field(default_factory=dict)
    tenant: str | None = None
    recorded: TimeRange | None = None

    def holds(self, record: StreamRecord) -> bool:
        """Whether the stream is meant."""
        if self.tenant not in (None, record.tenant) or not self.labels.items() <= record.labels.items():
            return False
        name = record.stream_id.removeprefix(f"{self.tenant}:") if self.tenant else record.stream_id
        return fnmatchcase(name, self.streams)

    def __str__(self) -> str:
        """'streams "cam-*" labelled site=north', for messages."""
        named = f" {self.streams!r}" if self.streams != "*" else ""
        labelled = " labelled " + ", ".join(f"{name}={text}" for name, text in self.labels.items())
        return f"streams{named}{labelled if self.labels else ''}"


def began_s(record: StreamRecord) -> float | None:
    """When the stream began, in Unix seconds; None where its label does not tell."""
    try:
        began = datetime.fromisoformat(record.labels.get(START, ""))
    except ValueError:
        return None
    return (began if began.tzinfo else began.replace(tzinfo=UTC)).timestamp()


def own_times(
    records: Sequence[StreamRecord], recorded: TimeRange, time_range: TimeRange | None
) -> dict[str, TimeRange]:
    """What was recorded at a time (Unix seconds), in every stream's own time and within a range of that.

    Of streams of which nobody knows when they began, or that have nothing of both, there is none.
    """
    within = time_range or TimeRange()
    found: dict[str, TimeRange] = {}
    for record in records:
        began = began_s(record)
        if began is not None:
            start_s = max(recorded.start_s - began, within.start_s)
            end_s = min(recorded.end_s - began, within.end_s)
            if start_s <= end_s:
                found[record.stream_id] = TimeRange(start_s=start_s, end_s=end_s)
    return found


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
