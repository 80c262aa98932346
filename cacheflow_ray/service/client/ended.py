"""How a streaming call ended, by the server's own word.

When the server ends a call while a message to it is being written, that write fails, and grpc.aio puts INTERNAL over
the status it has received (https://github.com/grpc/grpc/issues/36066). A client that was told to stop would take that
for a connection that broke, and connect anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from grpc import StatusCode, aio

from cacheflow_ray.service.client.channel import is_the_services

_T = TypeVar("_T")

#: A write fails only once the server's status is here, or close behind.
_BEHIND_S = 0.5


class Ending:
    """Keeps the first status of `call` that the service itself gave."""

    def __init__(self, call: aio.Call) -> None:
        self._status: aio.AioRpcError | None = None
        self._told = asyncio.Event()
        call.add_done_callback(self._keep)

    def _keep(self, call: aio.Call) -> None:
        """Runs within each change of the status, before any other can follow."""
        error = aio.AioRpcError(
            _at_once(call.code()),
            _at_once(call.initial_metadata()),
            _at_once(call.trailing_metadata()),
            details=_at_once(call.details()),
        )
        if self._status is None and is_the_services(error):
            self._status = error
            self._told.set()

    async def cause(self, raised: aio.AioRpcError) -> aio.AioRpcError:
        """Why the call ended that raised this."""
        if self._status is None and raised.code() is StatusCode.INTERNAL and not is_the_services(raised):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _BEHIND_S)
        return self._status or raised


def _at_once(known: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine gives that has nothing to wait for."""
    try:
        known.send(None)
    except StopIteration as stop:
        given: _T = stop.value
        return given
    known.close()
    raise RuntimeError("grpc.aio has a call's status changed before all of it is known")
