"""Who may have a transaction open in a shard's LMDB environment, and when."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from memory_store.errors import StoreUnavailable

_GROW_TIMEOUT_S = 30.0


class Gate:
    """Admits many transactions, or one change of the map while there is none (LMDB moves the map under open ones)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        self._waiting = 0
        self._closed = False

    def enter(self) -> Callable[[], None]:
        """Wait to be admitted; returns what to call on leaving. A thread already inside is never made to wait."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or me in self._inside or self._closed)
            if self._closed:
                raise StoreUnavailable("the store is closed: open it again")
            self._inside[me] = self._inside.get(me, 0) + 1
        return lambda: self._leave(me)

    def _leave(self, thread: int) -> None:
        with self._changed:
            self._inside[thread] -= 1
            if not self._inside[thread]:
                del self._inside[thread]
            self._changed.notify_all()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Admit nobody meanwhile; who is inside goes on.

        To undo a write, py-lmdb waits for an instant at which no other thread is in a call, which busy readers never
        give it.
        """
        with self._changed:
            self._waiting += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self, *, close: bool = False) -> Iterator[None]:
        """Run while no transaction is open.

        Raises:
            StoreUnavailable: this very thread holds one open, or others do so for too long.
        """
        with self._changed:
            self._waiting += 1
            try:
                own = threading.get_ident() in self._inside
                if own or not self._changed.wait_for(lambda: not self._inside, _GROW_TIMEOUT_S):
                    raise StoreUnavailable("block readers are held open while the store must grow: close them first")
                yield
                self._closed = self._closed or close
            finally:
                self._waiting -= 1
                self._changed.notify_all()
