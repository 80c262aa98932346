"""What a data file may be after a power cut, by the record of its writes and barriers.

    ------- writes -------- barrier ------- writes ------|cut
    all of these are there         |  of these, any: each page stands as any of the versions it had since

A page (or, more finely, a sector) is on disk as it was at the last barrier or after any of the later writes to it, each
page apart. A write through an O_DSYNC descriptor is a barrier for the pages it touches.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.memory_store.faults.recorder import Barrier, Event, Mark, Resize, Write
from tests.memory_store.faults.workload import Held

PAGE = 4096
SECTOR = 512


@dataclass(slots=True)
class Disk:
    """One file as its writes and barriers go by. `unit`: bytes that reach the disk as one."""

    unit: int = PAGE
    durable: bytearray = field(default_factory=bytearray)
    pending: dict[int, list[tuple[int, int, bytes]]] = field(default_factory=lambda: defaultdict(list))
    begun: dict[int, int] = field(default_factory=dict)
    now: int = 0

    def apply(self, event: Event) -> None:
        self.now += 1
        if isinstance(event, Write):
            self.write(event)
        elif isinstance(event, Barrier) and not event.end:
            self.begun[event.number] = self.now
        elif isinstance(event, Barrier):
            self._settle(self.begun.pop(event.number), list(self.pending))
        elif isinstance(event, Resize):
            self._settle(self.now + 1, list(self.pending))
            self.durable = self.durable[: event.size].ljust(event.size, b"\0")

    def write(self, event: Write) -> None:
        touched = [number for number, _, _ in _pieces(event, self.unit)]
        for number, offset, data in _pieces(event, self.unit):
            self.pending[number].append((self.now, offset, data))
        if event.durable:
            self._settle(self.now + 1, touched)

    def after_cut(self, survive: Callable[[int, int], int], *, whole_size: bool) -> bytes:
        """The file after a cut now.

        Args:
            survive: given a unit's number and how often it was written since the last barrier, how many of these
                writes reached the disk.
            whole_size: the file has grown to its full size even where the data did not arrive.
        """
        image = bytearray(self.durable)
        for number, writes in self.pending.items():
            for _, offset, data in writes[: survive(number, len(writes))]:
                _put(image, offset, data)
        if whole_size:
            end = max((offset + len(data) for writes in self.pending.values() for _, offset, data in writes), default=0)
            image.extend(bytes(max(0, end - len(image))))
        return bytes(image)

    def _settle(self, before: int, numbers: Sequence[int]) -> None:
        for number in numbers:
            writes = self.pending.pop(number)
            for _, offset, data in (write for write in writes if write[0] < before):
                _put(self.durable, offset, data)
            if later := [write for write in writes if write[0] >= before]:
                self.pending[number] = later


def survivors(rng: random.Random, pending: Sequence[int]) -> Iterator[tuple[str, Callable[[int, int], int]]]:
    """Ways in which unsynced units may survive, by name. `pending`: their numbers, in the order written first."""
    newer = set(pending[len(pending) // 2 :])
    yield "none", lambda _, count: 0
    yield "all", lambda _, count: count
    yield "newer half", lambda number, count: count if number in newer else 0
    yield "older half", lambda number, count: 0 if number in newer else count
    for share in (0.1, 0.5, 0.9):
        kept = {number for number in pending if rng.random() < share}
        yield f"{share} of them", lambda number, count, kept=kept: rng.randint(1, count) if number in kept else 0


@dataclass(slots=True)
class History:
    """What the workload was told up to now, for each stream."""

    acked: dict[str, list[tuple[int, Held | None]]] = field(default_factory=lambda: defaultdict(list))
    begun: dict[str, Held | None] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def apply(self, mark: Mark, at: int) -> None:
        """Args: at: any clock by which a loss is later bounded."""
        what, stream_id, held = mark.what
        if what == "begin":
            self.begun[stream_id] = held
            self.open.add(stream_id)
        elif what == "acked":
            self.acked[stream_id].append((at, held))
            self.open.discard(stream_id)

    def last(self, stream_id: str) -> Held | None:
        """What was acknowledged last."""
        return self.acked[stream_id][-1][1] if self.acked[stream_id] else None

    def allowed(self, stream_id: str, since: int | None = None) -> list[Held | None]:
        """What may be found of the stream: the last acknowledged, what was under way, and, given `since`, also what
        was there before each change acknowledged at that time or later."""
        states = [(-1, None), *self.acked[stream_id]]
        first = len(states) - 1
        while since is not None and first > 0 and states[first][0] >= since:
            first -= 1
        under_way = [self.begun[stream_id]] if stream_id in self.open else []
        return [held for _, held in states[first:]] + under_way


def is_commit(event: Event) -> bool:
    """Whether it is LMDB's write of a meta page, by which a transaction begins to count."""
    return isinstance(event, Write) and event.offset < 2 * PAGE and len(event.data) < PAGE


def _pieces(event: Write, unit: int) -> Iterator[tuple[int, int, bytes]]:
    """(number of the unit, offset, bytes) of each unit the write touches."""
    at, end = event.offset, event.offset + len(event.data)
    while at < end:
        stop = min(end, (at // unit + 1) * unit)
        yield at // unit, at, event.data[at - event.offset : stop - event.offset]
        at = stop


def _put(image: bytearray, offset: int, data: bytes) -> None:
    if offset > len(image):
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data
