from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from cacheflow_ray.media import Frame, prefetch


def _frames(count: int, made: list[int] | None = None, size: int = 10) -> Iterator[Frame]:
    for i in range(count):
        if made is not None:
            made.append(i)
        yield Frame(seq=i, timestamp_s=float(i), image=np.zeros((size, size, 3), np.uint8))


def _decoding_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "cacheflow-decode"]


def _settle(made: list[int], number: int) -> None:
    """Waits until the thread has made this many frames (or fails by the test's own time limit)."""
    while len(made) < number:
        threading.Event().wait(0.001)
    threading.Event().wait(0.05)  # time to run too far, if it would


def test_all_frames_come_out_in_order() -> None:
    assert [f.seq for f in prefetch(_frames(200), max_frames=3)] == list(range(200))
    assert not _decoding_threads()


@pytest.mark.parametrize(
    ("limits", "ahead"),
    [({"max_frames": 4}, 4), ({"max_bytes": 1000}, 3), ({"max_bytes": 1}, 1), ({"max_frames": 9, "max_bytes": 650}, 2)],
)
def test_it_never_holds_more_than_its_limits(limits: dict[str, int], ahead: int) -> None:
    made: list[int] = []
    frames = prefetch(_frames(50, made), **limits)  # 300 bytes each
    next(frames)
    _settle(made, ahead + 2)
    assert len(made) == 1 + ahead + 1  # one taken, those held, and one waiting for room
    frames.close()


def test_an_error_comes_after_the_frames_before_it() -> None:
    def failing() -> Iterator[Frame]:
        yield from _frames(5)
        raise OSError("camera unplugged")

    seen = []
    with pytest.raises(OSError, match="unplugged"):
        for frame in prefetch(failing()):
            seen.append(frame.seq)
    assert seen == [0, 1, 2, 3, 4]
    assert not _decoding_threads()


def test_closing_early_stops_and_joins_the_thread() -> None:
    made: list[int] = []
    frames = prefetch(_frames(10_000, made), max_frames=2)
    next(frames)
    assert _decoding_threads()
    frames.close()
    assert not _decoding_threads()
    assert len(made) < 10
    assert list(frames) == []


def test_never_started_it_starts_nothing() -> None:
    made: list[int] = []
    prefetch(_frames(3, made)).close()
    assert made == []
