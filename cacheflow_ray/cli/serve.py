"""`cacheflow serve`: the memory as a service, on this machine or a Ray cluster."""

from __future__ import annotations

import signal
import socket
import threading
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheflow_ray.cli.options import Json, ModelChoice, Place, flattened, parse_counts
from cacheflow_ray.cli.output import Output, err_console, plural
from cacheflow_ray.cli.shape import Shape
from cacheflow_ray.errors import InvalidConfig, UsageError

if TYPE_CHECKING:
    from cacheflow_ray.actors.topology import ClusterOptions
    from cacheflow_ray.config import ServiceOptions

EPILOG = """Examples:

$ cacheflow serve

$ cacheflow serve --data /archive --host 0.0.0.0 --keys keys.toml --tls-cert cert.pem --tls-key key.pem

$ cacheflow serve --encoders 4 --answerers 2 --gpus-per-encoder 0.5 --gpus-per-answerer 1 --ray-address auto

$ cacheflow serve --ray-address auto --stores 2 --store-label cacheflow.io/store --role-label cacheflow.io/role

$ cacheflow ingest clip.mp4 --server 127.0.0.1:50051

It says where it serves on one line, and then serves. SIGTERM or Ctrl-C closes it without losing anything: nothing new
is taken, questions are answered, what was pushed becomes durable; a second Ctrl-C does not wait for that. The same
command on a Ray cluster where it runs already, as after --detached, joins it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where clients find the service, and whom it takes."""

    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Address to listen at; 0.0.0.0: from other machines too.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="Port; 0: any free one.")] = 50051
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", metavar="PORT", help="Serve /metrics for Prometheus here.")
    ] = None
    health_port: Annotated[
        int | None,
        typer.Option(
            "--health-port",
            metavar="PORT",
            help="Tell of health (grpc.health.v1) here too, never encrypted: for probes that can do no TLS.",
        ),
    ] = None
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", metavar="TOML", help="Tenants and their API keys; without, whoever connects may do all."
        ),
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="PEM", help="Certificate of the service: encrypts.")
    ] = None
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="PEM", help="Its private key.")] = None
    client_ca: Annotated[
        Path | None,
        typer.Option("--client-ca", metavar="PEM", help="Take only clients with certificates of these authorities."),
    ] = None
    grace: Annotated[
        float, typer.Option("--grace", metavar="S", help="When it closes, what is under way gets so long to end.")
    ] = 30.0
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=N",
            help="How much it takes, as max_frame_bytes=33554432 or max_questions=128. May be given several times.",
        ),
    ] = None

    def options(self) -> ServiceOptions:
        """Raises UsageError, InvalidConfig."""
        from cacheflow_ray.config import ServiceLimits, ServiceOptions, TlsOptions

        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key go together: give both, or none")
        if self.client_ca is not None and self.tls_cert is None:
            raise UsageError("--client-ca takes --tls-cert and --tls-key: give all three")
        # An actor works in another folder.
        given: dict[str, Any] = {name: path and path.absolute() for name, path in self._files().items()}
        tls = TlsOptions.model_validate(given) if self.tls_cert else None
        return ServiceOptions(
            host=self.host,
            port=self.port,
            metrics_host=self.host,
            metrics_port=self.metrics_port,
            health_port=self.health_port,
            tls=tls,
            keys=self.keys and self.keys.absolute(),
            limits=ServiceLimits.model_validate(parse_counts(self.limits or (), "--limit")),
            drain_grace_s=self.grace,
        )

    def _files(self) -> dict[str, Path | None]:
        return {"cert": self.tls_cert, "key": self.tls_key, "client_ca": self.client_ca}

    @property
    def is_open(self) -> bool:
        """Whether strangers may reach it, and are taken."""
        return self.keys is None and self.client_ca is None and not _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def register(app: typer.Typer) -> None:
    app.command("serve", help="Serve the memory to clients, on this machine or a Ray cluster.", epilog=EPILOG)(
        flattened(serve)
    )


def serve(place: Place, model: ModelChoice, listening: Listening, shape: Shape, as_json: Json = False) -> None:
    from cacheflow_ray.actors import topology
    from cacheflow_ray.service.gateway import Gateway

    output, service = Output(as_json=as_json), listening.options()
    cluster = shape.options(place, model)
    if shape.ray_address is None:
        _check(service)
    try:
        with err_console().status("starting"):  # shown on a terminal only
            started = topology.start(cluster)
            port = started.serve(partial(Gateway, options=service))
        tell(cluster, listening, shape, port, output)
        if shape.detached:
            return
        _until_told()
        output.note("closing: what is under way ends first (Ctrl-C: at once)")
        started.drain(listening.grace)
        started.stop()
    finally:
        topology.disconnect()


def _check(service: ServiceOptions) -> None:
    """See before the start, which takes its time, that files can be read and the port is free. Raises InvalidConfig."""
    from cacheflow_ray.service.keys import KeyRing
    from cacheflow_ray.service.tls import server_credentials

    KeyRing.load(service.keys)
    if service.tls is not None:
        server_credentials(service.tls)
    try:
        family = socket.getaddrinfo(service.host, service.port)[0][0]
        socket.create_server((service.host, service.port), family=family).close()
    except OSError as error:
        where = f"{service.host}:{service.port}"
        raise InvalidConfig(f"port: {where} cannot be used: {error.strerror or error}", key="port") from None


def tell(cluster: ClusterOptions, listening: Listening, shape: Shape, port: int, output: Output) -> None:
    """One line, or the object of --json: where it serves, and what."""
    address = f"{listening.host}:{port}"
    if listening.is_open:
        output.warn(f"whoever reaches {address} may read and delete everything: give --keys, and --tls-cert")
    made = [(shape.encoders, "encoder"), (shape.answerers, "answerer"), (shape.stores, "store")]
    parts = ", ".join(plural(count, noun) for count, noun in made)
    output.say(f"serving at {address}: {parts} in {cluster.data}, model {cluster.model}")
    output.result(
        {
            "address": address,
            "encoders": shape.encoders,
            "answerers": shape.answerers,
            "stores": shape.stores,
            "data": cluster.data,
            "model": cluster.model,
            "metrics_port": listening.metrics_port,
            "health_port": listening.health_port,
            "detached": shape.detached,
        }
    )


def _until_told() -> None:
    """Returns at SIGTERM or Ctrl-C; from then on both do what they did before."""
    told = threading.Event()
    earlier = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        told.wait()
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
