"""IngestService: video in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from cacheflow_ray.actors.api import ClusterPort, IngestSession
from cacheflow_ray.errors import CacheFlowError, UsageError
from cacheflow_ray.service.calls import Call, gateway_closing
from cacheflow_ray.service.intake import Load, intake_of
from cacheflow_ray.service.keys import Tenant
from cacheflow_ray.service.limits import Turnstile
from cacheflow_ray.service.messages import Granted, Start, read_start, write_ack, write_started, write_stream
from cacheflow_ray.service.metrics import GatewayMetrics
from cacheflow_ray.service.pump import Pump
from cacheflow_ray.service.v1.ingest_pb2 import IngestFinished, IngestRequest, IngestResponse
from memory_store.errors import StoreError

_LOG = logging.getLogger(__name__)


class IngestServicer:
    """Pushes what clients send. `closing`: done once the gateway closes; clients then go on elsewhere."""

    def __init__(
        self, cluster: ClusterPort, turnstile: Turnstile, metrics: GatewayMetrics, closing: asyncio.Future[None]
    ) -> None:
        self._cluster, self._turnstile = cluster, turnstile
        self._metrics, self._closing = metrics, closing

    async def ingest(self, requests: AsyncIterator[IngestRequest], call: Call) -> AsyncGenerator[IngestResponse, None]:
        start = await _read_first(requests, call.tenant.name)
        with self._turnstile.ingest():
            async with self._opened(start, call.tenant) as session:
                yield IngestResponse(started=write_started(_granted(session)))
                intake = intake_of(start.kind, self._turnstile.limits)
                pump = Pump(session, intake, closing=self._closing, received=self._received)
                async with aclosing(pump.run(requests)) as acks:
                    async for ack in acks:
                        yield IngestResponse(ack=write_ack(ack))
                if pump.finished and not session.position.complete:
                    await session.finish()
        if pump.finished:
            stream = write_stream(await self._cluster.get_stream(start.new.stream_id))
            yield IngestResponse(finished=IngestFinished(stream=stream))
        elif self._closing.done():
            raise gateway_closing()

    def _received(self, load: Load) -> None:
        self._metrics.received_frames.inc(load.frames)
        self._metrics.received_bytes.inc(load.num_bytes)

    @asynccontextmanager
    async def _opened(self, start: Start, tenant: Tenant) -> AsyncIterator[IngestSession]:
        """Its session, closed at once however the call ends."""
        async with self._turnstile.making(self._cluster, tenant, start.new.stream_id):
            session = await self._open(start)
        try:
            yield session
        finally:
            try:
                await session.close()
            except (CacheFlowError, StoreError) as error:  # what was acknowledged is durable, the rest is sent again
                _LOG.warning("stream %s was not closed: %s", start.new.stream_id, error)

    async def _open(self, start: Start) -> IngestSession:
        opening = asyncio.ensure_future(self._cluster.open_ingest(start.new, start.kind, start.overload))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:  # the client went away meanwhile
            with suppress(CacheFlowError, StoreError):
                await (await opening).close()
            raise


async def _read_first(requests: AsyncIterator[IngestRequest], tenant: str) -> Start:
    """Raises: UsageError: it is not `start`, or not as it has to be."""
    request = await anext(requests, None)
    if request is None or request.WhichOneof("message") != "start":
        raise UsageError("message: the first has to be `start`", field="message")
    return read_start(request.start, tenant)


def _granted(session: IngestSession) -> Granted:
    return Granted(position=session.position, credit_frames=session.credit_frames, credit_bytes=session.credit_bytes)
