"""One stream being pushed: what waits, what is encoded and not durable yet, and who waits for it to be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter

from cacheflow_ray.engine.about import About
from cacheflow_ray.engine.position import End, Overload, Position
from cacheflow_ray.engine.stream import StreamEncoder
from cacheflow_ray.media import Frame


def position_of(encoder: StreamEncoder, shed: int = 0) -> Position:
    """Of the state the encoder has committed, or is about to."""
    state = encoder.state
    return Position.at(
        About(next_seq=state.next_seq, tail_tokens=len(state.tail), complete=state.complete, counters=state.counters),
        encoder.num_blocks,
        shed,
    )


@dataclass(slots=True, eq=False)
class Push:
    """One call's frames: `done` is resolved when none of them is left that is neither durable nor left out."""

    left: int
    done: Future[Position] = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class Item:
    """A waiting frame. `make` gives its picture, decoding it where need be, in a thread beside the steps."""

    make: Callable[[], Frame]
    push: Push
    made: Future[Frame] | None = None

    @property
    def is_made(self) -> bool:
        """Whether there is a frame, or what making it raised."""
        return self.made is not None and self.made.done()


class Session:
    """One owner's hold on a stream; its pool locks around every method.

    Attributes:
        queue: frames not yet taken by a step. taken: frames encoded, not durable.
        error: why it takes nothing any more. writing: a commit of it is under way. pushed_at: `perf_counter`.
    """

    def __init__(self, encoder: StreamEncoder, epoch: int, overload: Overload, room: int) -> None:
        self.encoder, self.epoch = encoder, epoch
        self._overload, self._room = overload, room
        self.position = position_of(encoder)
        self.queue, self.taken = deque[Item](), list[Item]()
        self.end: End | None = None
        self.ended = False
        self.shed = 0
        self.writing = False
        self.pushed_at = perf_counter()
        self.error: Exception | None = None

    @property
    def num_made(self) -> int:
        """Of the waiting frames, those at the front that a step can take."""
        return next((at for at, item in enumerate(self.queue) if not item.is_made), len(self.queue))

    @property
    def dirty(self) -> bool:
        """Whether something is encoded and not on its way to the store."""
        return bool(self.taken) or self.ended

    def add(self, items: list[Item]) -> list[Push]:
        """Let frames wait, and leave out what is too many; returns pushes of which nothing waits any more."""
        self.queue.extend(items)
        left_out: list[Item] = []
        if self._overload is Overload.DROP_OLDEST:
            left_out = [self.queue.popleft() for _ in range(len(self.queue) - self._room)]
        elif self._overload is Overload.LOWER_FPS and len(self.queue) > self._room:
            waiting = list(self.queue)
            left_out, self.queue = waiting[::2], deque(waiting[1::2])
        self.shed += len(left_out)
        return settle(left_out)

    def start_writing(self) -> Writing:
        """What the encoder has just given as a commit."""
        position = position_of(self.encoder, self.shed)
        end = self.end if self.ended else None
        writing = Writing(session=self, position=position, items=self.taken, end=end)
        self.taken, self.ended, self.writing = [], False, True
        return writing

    def fail(self, error: Exception) -> list[Future[Position]]:
        """Take nothing any more; returns what is to be told of the error."""
        if self.error is not None:
            return []
        self.error = error
        items = [*self.queue, *self.taken]
        self.queue.clear()
        self.taken = []
        pushes = {id(item.push): item.push.done for item in items}
        return [*pushes.values(), *([self.end.done] if self.end else [])]


def settle(items: list[Item]) -> list[Push]:
    """Count frames as done; returns the pushes that are."""
    pushes = []
    for item in items:
        item.push.left -= 1
        if not item.push.left:
            pushes.append(item.push)
    return pushes


@dataclass(slots=True, kw_only=True, eq=False)
class Writing:
    """A stream's part of a commit under way: the position it makes durable, and who waits for that."""

    session: Session
    position: Position
    items: list[Item]
    end: End | None

    def succeed(self) -> bool:
        """Tell them; whether the session has come to its end."""
        self.session.position = self.position
        for push in settle(self.items):
            resolve(push.done, self.position)
        if self.end is not None:
            resolve(self.end.done, self.position)
        return self.end is not None

    def fail(self, error: Exception) -> None:
        """Tell them."""
        for item in self.items:
            refuse(item.push.done, error)
        if self.end is not None:
            refuse(self.end.done, error)


def resolve(future: Future[Position], position: Position) -> None:
    """Unless it has been told already."""
    if not future.done():
        future.set_result(position)


def refuse(future: Future[Position], error: Exception) -> None:
    """Unless it has been told already."""
    if not future.done():
        future.set_exception(error)
