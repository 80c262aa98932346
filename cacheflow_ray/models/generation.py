"""Generated ids from the thread that makes them, text pieces in another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

#: What the tokenizer decodes bytes of an unfinished character to.
INCOMPLETE = "\ufffd"


class Generation:
    """An answer as it is generated: iterate once for its text. Letting go of the iterator stops the model's work.

    Iterating again raises RuntimeError: the context has taken the answer in.

    Args:
        tokenizer: decodes the ids.
        run: has ids generated into the sink it is given, meanwhile or at once.

    Attributes:
        num_tokens: ids generated so far.
    """

    def __init__(self, tokenizer: Any, run: Callable[[TokenSink], None]) -> None:
        self._tokenizer, self._run = tokenizer, run
        self._sink = TokenSink()
        self._started = False
        self.num_tokens = 0

    def __iter__(self) -> Iterator[str]:
        if self._started:
            raise RuntimeError("an answer can be iterated once")
        self._started = True
        try:
            self._run(self._sink)
            yield from self._pieces()
        finally:
            self._sink.stop()

    def _pieces(self) -> Iterator[str]:
        """Text as it grows. Ids are decoded together with the piece before them, which tells how they join, and no
        further back: an answer costs the same per token however long it is."""
        ids: list[int] = []
        start = given = 0  # ids[start:given] is the piece that was given last
        for token in self._sink:
            ids.append(token)
            self.num_tokens = len(ids)
            piece = self._grown(ids, start, given)
            if piece and not piece.endswith(INCOMPLETE):
                yield piece
                start, given = given, len(ids)
        if piece := self._grown(ids, start, given):
            yield piece

    def _grown(self, ids: list[int], start: int, given: int) -> str:
        before: str = self._tokenizer.decode(ids[start:given], skip_special_tokens=True)
        after: str = self._tokenizer.decode(ids[start:], skip_special_tokens=True)
        return after[len(before) :]


class TokenSink:
    """Ids on their way from whoever generates them: put there, iterated here."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()

    @property
    def is_stopped(self) -> bool:
        """Whether nobody reads any more."""
        return self._stopped.is_set()

    def put(self, token: int) -> None:
        """A new id."""
        self._queue.put(token)

    def end(self) -> None:
        """No more ids."""
        self._queue.put(None)

    def fail(self, error: BaseException) -> None:
        """No more ids, because of `error`."""
        self._queue.put(error)

    def stop(self) -> None:
        """Make generation end within one step."""
        self._stopped.set()

    def __iter__(self) -> Iterator[int]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
