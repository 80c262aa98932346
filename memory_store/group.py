"""Group commit: writes that come while one is under way to the disk share the next transaction, and its syncs.

The first caller to find nobody writing leads: it takes what waits, up to a number of bytes, writes it, and lets the
others know. Nobody waits for company, so a lone commit is as fast as without; and a caller holds what it wants written
until it is, so nothing queues up but callers.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import lmdb

from memory_store.blobs import Blobs, Snapshot

T = TypeVar("T")

#: No transaction takes more than this, unless one write alone is larger.
GROUP_BYTES = 256 << 20


class _Write:
    """One caller's change, and what became of it."""

    def __init__(self, change: Callable[[Snapshot], Any], num_bytes: int) -> None:
        self.change, self.num_bytes = change, num_bytes
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def outcome(self) -> Any:
        if self.error is not None:
            raise copy.copy(self.error)  # several callers may raise one error, each with a traceback of its own
        return self.result


class GroupWriter:
    """Writes to one shard for many threads. A change that fails is undone alone; the others of its group stay."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._waiting: deque[_Write] = deque()
        self._leading = threading.Lock()

    def write(self, change: Callable[[Snapshot], T], num_bytes: int = 0) -> T:
        """As `Blobs.write`: the change is durable on return, or undone.

        Args:
            change: may run more than once, each time on a state in which it has not run.
            num_bytes: about how much it writes.
        """
        own = _Write(change, num_bytes)
        self._waiting.append(own)
        try:
            with self._leading:
                while not own.done:
                    self._write_group()
        except BaseException:
            with contextlib.suppress(ValueError):  # interrupted: whoever writes next must not write this
                self._waiting.remove(own)
            raise
        result: T = own.outcome()
        return result

    def _write_group(self) -> None:
        group = self._next_group()
        try:
            self._blobs.write(lambda snapshot: _apply(snapshot, group))
        except Exception as error:
            for write in group:
                write.error = write.error or error
        except BaseException:
            self._waiting.extendleft(reversed(group))  # an interrupt is the leader's own: the next one takes over
            raise
        for write in group:
            write.done = True

    def _next_group(self) -> list[_Write]:
        group = [self._waiting.popleft()]
        room = GROUP_BYTES - group[0].num_bytes
        while self._waiting and self._waiting[0].num_bytes <= room:
            group.append(self._waiting.popleft())
            room -= group[-1].num_bytes
        return group


def _apply(snapshot: Snapshot, group: list[_Write]) -> None:
    if len(group) == 1:
        group[0].error = None
        group[0].result = group[0].change(snapshot)
        return
    for write in group:
        write.error = None
        try:
            with snapshot.nested() as inner:
                write.result = write.change(inner)
        except lmdb.Error:
            raise  # of the whole transaction
        except Exception as error:
            write.error = error
