"""Frames of one source into a pool's stream: some on their way while the next are decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import islice

from cacheflow_ray.engine.pool import EncoderPool
from cacheflow_ray.engine.position import Position
from cacheflow_ray.media import Frame


def feed(
    pool: EncoderPool,
    stream_id: str,
    epoch: int,
    frames: Iterator[Frame],
    *,
    at_once: int,
    under_way: int,
    wanted: Callable[[], bool],
    acked: Callable[[Position], None] = lambda _: None,
) -> bool:
    """Push frames until they end, or nobody wants more; then all that was pushed is durable.

    Args:
        at_once: frames of a push, which waits for as many.
        under_way: pushes on their way before another waits.
        acked: told how far the stream has come.

    Returns:
        Whether they ended.

    Raises:
        as `EncoderPool.push`, and what its futures are refused with.
    """
    pushes = deque[Future[Position]]()
    while some := list(islice(frames, at_once)):
        if not wanted():
            return False
        pushes.append(pool.push(stream_id, epoch, [partial(_same, frame) for frame in some]))
        if len(pushes) > under_way:
            acked(pushes.popleft().result())
    for push in pushes:
        acked(push.result())
    return True


def _same(frame: Frame) -> Frame:
    return frame
