"""What surrounds every call: who calls, whether it may start, how it ends, and what is noted of it.

On the wire a unary call is a stream of one message, so every method is served as streams of bytes both ways, by one
wrapper. Messages are parsed inside it: what is no message is INVALID_ARGUMENT like any other bad argument.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from google.protobuf.message import Message
from grpc import StatusCode, aio
from grpc.aio import ServicerContext

from cacheflow_ray.errors import ClusterUnavailable
from cacheflow_ray.service.keys import KeyRing, Tenant
from cacheflow_ray.service.metrics import GatewayMetrics
from cacheflow_ray.service.status import status_of

REQUEST_ID = "x-request-id"

_log = logging.getLogger("cacheflow_ray.service")
#: How calls end that gRPC does not give all of their memory back.
_BROKEN = frozenset({StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED})
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

Requests: TypeAlias = AsyncIterator[bytes]
Context: TypeAlias = ServicerContext[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call as servicers see it. `deadline_s`: Unix time by which the client stops waiting; None: it waits."""

    tenant: Tenant
    deadline_s: float | None = None


Serve: TypeAlias = Callable[[Requests, Call], AsyncGenerator[Message, None]]


@dataclass(slots=True, kw_only=True)
class Note:
    """What is noted of a call while it lasts."""

    method: str
    request_id: str
    tenant: str = ""
    code: StatusCode = StatusCode.OK
    error: Exception | None = None
    admitted: bool = False
    began: float = field(default_factory=time.perf_counter)


class CallDesk:
    """Lets calls in, and sees them out.

    Attributes:
        closing: done once the gateway takes no new calls. Those that would go on for ever watch it.
        num_broken: calls that clients cancelled, or whose deadline passed.
    """

    def __init__(self, keys: KeyRing, metrics: GatewayMetrics, *, log_json: bool) -> None:
        self._keys, self._metrics, self._log_json = keys, metrics, log_json
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.num_broken = self._num_calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def handled(self, method: str, serve: Serve) -> Callable[[Requests, Context], Awaitable[None]]:
        """`serve` as gRPC calls it: bytes in, bytes out, and a status that says what went wrong."""

        async def handler(requests: Requests, context: Context) -> None:
            note = Note(method=method, request_id=_request_id(context))
            self._enter(note)
            try:
                call = self._admit(note, context)
                await _answer(serve(requests, call), context, note)
            except asyncio.CancelledError:
                note.code = StatusCode.DEADLINE_EXCEEDED if _is_late(context) else StatusCode.CANCELLED
                raise
            except aio.InternalError:  # nobody is there any more to read what is written
                note.code = StatusCode.CANCELLED
                raise
            except Exception as error:
                note.error = error
                await _refuse(context, note)
            finally:
                self._leave(note)

        return handler

    def close(self) -> None:
        """Let no call in any more."""
        if not self.closing.done():
            self.closing.set_result(None)

    async def idle(self, within_s: float) -> bool:
        """Wait until no call is under way; False: some still are."""
        try:
            await asyncio.wait_for(self._idle.wait(), within_s)
        except TimeoutError:
            return False
        return True

    def _enter(self, note: Note) -> None:
        self._metrics.calls_in_flight.labels(note.method).inc()

    def _admit(self, note: Note, context: Context) -> Call:
        if self.closing.done():
            raise gateway_closing()
        tenant = self._keys.tenant_of(_metadata(context))
        note.tenant, note.admitted = tenant.name, True
        self._num_calls += 1
        self._idle.clear()
        remaining_s = context.time_remaining()
        return Call(tenant=tenant, deadline_s=None if remaining_s is None else time.time() + remaining_s)

    def _leave(self, note: Note) -> None:
        elapsed_s = time.perf_counter() - note.began
        self._metrics.calls_in_flight.labels(note.method).dec()
        self._metrics.calls.labels(note.method, note.code.name).inc()
        self._metrics.call_s.labels(note.method).observe(elapsed_s)
        _write_line(note, elapsed_s, as_json=self._log_json)
        self._num_calls -= note.admitted
        self.num_broken += note.code in _BROKEN
        if not self._num_calls:
            self._idle.set()


def gateway_closing() -> ClusterUnavailable:
    """What clients are told by a gateway that closes."""
    return ClusterUnavailable("this gateway is closing: connect again, to another")


async def _answer(responses: AsyncGenerator[Message, None], context: Context, note: Note) -> None:
    """Send what the servicer yields. Cancelled, or when it fails, the servicer is closed before this returns."""
    told = ((REQUEST_ID, note.request_id),)
    context.set_trailing_metadata(told)
    async with aclosing(responses):
        started = False
        async for response in responses:
            if not started:
                await context.send_initial_metadata(told)
                started = True
            await context.write(response.SerializeToString())


async def _refuse(context: Context, note: Note) -> None:
    """End the call with the status of what was raised."""
    assert note.error is not None
    status = status_of(note.error, tenant=note.tenant, request_id=note.request_id)
    note.code = status.code
    metadata = (*status.trailing_metadata, (REQUEST_ID, note.request_id))
    await context.abort(status.code, status.details, metadata)


def _write_line(note: Note, elapsed_s: float, *, as_json: bool) -> None:
    """One line a call; a failure nobody thought of brings its traceback."""
    fields: dict[str, Any] = {
        "method": note.method,
        "tenant": note.tenant,
        "code": note.code.name,
        "ms": round(elapsed_s * 1000, 1),
        "request_id": note.request_id,
    }
    if note.error is not None:
        fields["error"] = " ".join(f"{type(note.error).__name__}: {note.error}".split())
    level, unforeseen = logging.INFO, None
    if note.code is StatusCode.INTERNAL:
        level, unforeseen = logging.ERROR, note.error
    if as_json:
        traced = {"traceback": "".join(traceback.format_exception(unforeseen))} if unforeseen else {}
        _log.log(level, "%s", json.dumps(fields | traced))
    else:
        _log.log(level, "%s", " ".join(f"{name}={value}" for name, value in fields.items()), exc_info=unforeseen)


def _request_id(context: Context) -> str:
    """The client's own, if it is one, else a new one."""
    given = str(dict(_metadata(context)).get(REQUEST_ID, ""))
    return given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex


def _metadata(context: Context) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((str(key), value) for key, value in context.invocation_metadata() or ())


def _is_late(context: Context) -> bool:
    remaining_s = context.time_remaining()
    return remaining_s is not None and remaining_s <= 0
