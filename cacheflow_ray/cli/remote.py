"""Which service a command speaks to, if any."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cacheflow_ray.cli.options import ModelChoice, Place
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.service.client import AsyncClient, Client, Tls

#: Where a service on this machine listens unless it is told otherwise.
LOCAL = "127.0.0.1:50051"

#: A wrong address is told after this long.
_GREETING_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The service a command speaks to, and how."""

    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="HOST:PORT",
            rich_help_panel="Server",
            help="A service to use instead of a folder. Default: $CACHEFLOW_SERVER.",
        ),
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            rich_help_panel="Server",
            help="Default: $CACHEFLOW_API_KEY, which other users of this machine do not see.",
        ),
    ] = None
    tls: Annotated[
        bool, typer.Option("--tls", rich_help_panel="Server", help="Encrypt, trusting the system's authorities.")
    ] = False
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="PEM", rich_help_panel="Server", help="Encrypt, trusting these authorities."),
    ] = None
    cert: Annotated[
        Path | None,
        typer.Option("--cert", metavar="PEM", rich_help_panel="Server", help="Your certificate, for mutual TLS."),
    ] = None
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PEM", rich_help_panel="Server", help="Your certificate's key.")
    ] = None

    def chosen(self, place: Place, model: ModelChoice | None = None) -> Link | None:
        """None: the command works in this process. A folder or model on the command line outdoes the environment.

        Raises:
            UsageError: both a service and something of this machine's own. InvalidConfig.
        """
        from cacheflow_ray.config import Defaults

        local = [f"--{own.name}" for pack in (place, model) if pack for own in fields(pack) if getattr(pack, own.name)]
        if self.server is not None and local:
            raise UsageError(f"{local[0]} is of this machine, and --server names another: leave one out")
        address = self.server or (None if local else Defaults.from_environment().server)
        if address is None and self != Remote():
            raise UsageError("--api-key, --tls, --ca, --cert and --key are for a service: name it with --server")
        return None if address is None else self.link(address)

    def link(self, default: str = LOCAL) -> Link:
        """The service named, or else that at `default`. Raises: InvalidConfig."""
        from cacheflow_ray.config import Defaults
        from cacheflow_ray.service.client import Tls

        defaults = Defaults.from_environment()
        stored = defaults.api_key.get_secret_value() if defaults.api_key else None
        tls = Tls(ca=self.ca, cert=self.cert, key=self.key)
        return Link(
            address=self.server or defaults.server or default,
            api_key=self.api_key or stored,
            tls=tls if self.tls or tls != Tls() else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A service that can be connected to."""

    address: str
    api_key: str | None
    tls: Tls | None

    def client(self, timeout_s: float = 60.0) -> Client:
        """Connected; a context manager. Raises: ClusterUnavailable: nobody is there."""
        from cacheflow_ray.service.client import Client

        client = Client(self.address, api_key=self.api_key, tls=self.tls, timeout_s=timeout_s)
        try:
            client.health(timeout_s=_GREETING_S)
        except BaseException:
            client.close()
            raise
        return client

    def aio(self) -> AsyncClient:
        """Not connected yet; a context manager."""
        from cacheflow_ray.service.client import AsyncClient

        return AsyncClient(self.address, api_key=self.api_key, tls=self.tls)
