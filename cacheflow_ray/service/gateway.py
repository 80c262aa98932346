"""The service's front: one gRPC server over one cluster.

start ──> serving ──drain──> closing: NOT_SERVING, new calls refused, ingests end once all they hold is durable,
                             questions are answered ──> stopped
"""

from __future__ import annotations

import asyncio
import logging

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.config import ServiceOptions, TlsOptions
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.service.calls import CallDesk
from cacheflow_ray.service.keys import KeyRing
from cacheflow_ray.service.limits import Turnstile
from cacheflow_ray.service.metrics import GatewayMetrics, MetricsServer
from cacheflow_ray.service.routes import SERVICES, handlers_of
from cacheflow_ray.service.servicers import (
    AdminServicer,
    AnswerServicer,
    IngestServicer,
    LibraryServicer,
    OperationsServicer,
    SearchServicer,
    StreamServicer,
)
from cacheflow_ray.service.tls import server_credentials

#: What was broken off may take so long to close what it held.
_CLOSING_S = 5.0
#: The actors' metrics are asked for so often.
_POLL_S = 5.0

_LOG = logging.getLogger(__name__)


class Gateway:
    """Serves one cluster to clients, in the event loop it is started in.

    Attributes:
        port, metrics_port, health_port: where it listens, once started; None where it does not.
        metrics: what it counts.
    """

    def __init__(self, cluster: ClusterPort, options: ServiceOptions) -> None:
        self._cluster, self._options = cluster, options
        self.metrics = GatewayMetrics()
        self._health = health_aio.HealthServicer()
        self._desk: CallDesk | None = None
        self._server: aio.Server | None = None
        self._health_server: aio.Server | None = None
        self._metrics_server: MetricsServer | None = None
        self._polling: asyncio.Task[None] | None = None
        self.port = 0
        self.metrics_port: int | None = None
        self.health_port: int | None = None

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            InvalidConfig: a file of keys or certificates is not as it has to be, or a port is taken.
        """
        try:
            await self._start(self._options)
        except BaseException:
            await self.stop()
            raise
        _LOG.info("serving at %s:%d", self._options.host, self.port)
        return self.port

    async def drain(self, grace_s: float | None = None) -> None:
        """Close without breaking anything off, unless it takes longer than `grace_s` (None: as the options say)."""
        if self._desk is not None:
            await self._health.enter_graceful_shutdown()
            self._desk.close()
            within_s = self._options.drain_grace_s if grace_s is None else grace_s
            if not await self._desk.idle(within_s):
                _LOG.warning("calls still under way after %.0f s are broken off", within_s)
        await self.stop()

    def is_worn(self) -> bool:
        """Whether a fresh process should take over: gRPC does not give back all that a cancelled call took."""
        return self._desk is not None and self._desk.num_broken >= self._options.renew_after

    async def stop(self) -> None:
        """Break off what is under way. Stopping again does nothing."""
        server, self._server = self._server, None
        if server is not None and self._desk is not None:
            await server.stop(grace=None)
            await self._desk.idle(_CLOSING_S)
        health, self._health_server = self._health_server, None
        if health is not None:
            await health.stop(grace=None)
        if self._polling is not None:
            self._polling.cancel()
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.close)
            self._metrics_server = None

    async def _start(self, options: ServiceOptions) -> None:
        self._desk = CallDesk(KeyRing.load(options.keys), self.metrics, log_json=options.log_json)
        limits = options.limits
        self._server = server = aio.server(options=_channel_options(options), maximum_concurrent_rpcs=limits.max_calls)
        server.add_generic_rpc_handlers(self._handlers(self._desk))
        await self._add_standard_services(server)
        self.port = _listen(server, options.host, options.port, options.tls)
        if options.metrics_port is not None:
            self._serve_metrics(options.metrics_host, options.metrics_port)
        await server.start()
        if options.health_port is not None:
            await self._serve_health(options.host, options.health_port)

    def _handlers(self, desk: CallDesk) -> list[grpc.GenericRpcHandler]:
        cluster, metrics, turnstile = self._cluster, self.metrics, Turnstile(self._options.limits)
        servicers = {
            "StreamService": StreamServicer(cluster, turnstile),
            "IngestService": IngestServicer(cluster, turnstile, metrics, desk.closing),
            "AnswerService": AnswerServicer(cluster, turnstile, metrics),
            "SearchService": SearchServicer(cluster, turnstile),
            "LibraryService": LibraryServicer(cluster, turnstile),
            "Operations": OperationsServicer(cluster, desk.closing),
            "AdminService": AdminServicer(cluster),
        }
        return [handlers_of(service, servicers[service.name], desk) for service in SERVICES]

    async def _add_standard_services(self, server: aio.Server) -> None:
        """Health and reflection, which need no key."""
        for service in SERVICES:
            await self._health.set(service.full_name, health_pb2.HealthCheckResponse.SERVING)
        add_HealthServicer_to_server(self._health, server)
        names = [service.full_name for service in SERVICES]
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        reflection.enable_server_reflection((*names, health_name, reflection.SERVICE_NAME), server)

    async def _serve_health(self, host: str, port: int) -> None:
        """Raises: InvalidConfig: the port cannot be used."""
        self._health_server = server = aio.server(options=[("grpc.so_reuseport", 0)])
        add_HealthServicer_to_server(self._health, server)
        self.health_port = _listen(server, host, port, key="health_port")
        await server.start()

    def _serve_metrics(self, host: str, port: int) -> None:
        """Raises: InvalidConfig: the port cannot be used."""
        try:
            self._metrics_server = self.metrics.serve(host, port)
        except OSError as error:
            raise InvalidConfig(
                f"metrics_port: {host}:{port} cannot be used: {error.strerror}", key="metrics_port"
            ) from None
        self.metrics_port = self._metrics_server.port
        self._polling = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        """Keep the actors' metrics fresh."""
        while True:
            try:
                self.metrics.actors.update(await self._cluster.status())
            except Exception as error:  # whatever it is: the next time may go well
                _LOG.warning("the actors' metrics are those of before: %r", error)
            await asyncio.sleep(_POLL_S)


def _listen(server: aio.Server, host: str, port: int, tls: TlsOptions | None = None, key: str = "port") -> int:
    address = f"{host}:{port}"
    try:
        if tls is None:
            found = server.add_insecure_port(address)
        else:
            found = server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise InvalidConfig(f"{key}: {address} cannot be used: {error}", key=key) from None
    if not found:
        raise InvalidConfig(f"{key}: {address} cannot be used: it is taken, or no address of this machine", key=key)
    return found


def _channel_options(options: ServiceOptions) -> list[tuple[str, int]]:
    keepalive_ms = round(options.keepalive_s * 1000)
    return [
        ("grpc.max_receive_message_length", options.limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may probe as often as every five seconds.
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.so_reuseport", 0),
    ]
