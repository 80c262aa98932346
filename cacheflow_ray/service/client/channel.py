"""A connection to the service, and one call on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import StatusCode, aio

from cacheflow_ray.errors import ClusterUnavailable, InvalidConfig
from cacheflow_ray.service.client.retry import Patience
from cacheflow_ray.service.status import Expected, error_of, retry_after_s

Asks = TypeVar("Asks", bound=Message)
Gets = TypeVar("Gets", bound=Message)

#: A frame of 8K as raw RGB is 100 MB; what the server takes is told by its credits.
MAX_MESSAGE_BYTES = 128 << 20

OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A server that is gone without a word is noticed within 30 s, also between calls' messages.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC waits up to 2 min before it connects anew; how long a call is tried again is this package's to say.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

#: What gRPC makes of a connection that breaks, depending on what it was at.
_BROKEN = frozenset({StatusCode.UNAVAILABLE, StatusCode.CANCELLED, StatusCode.INTERNAL, StatusCode.UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a connection is made safe.

    Args:
        ca: PEM file of authorities to trust; None: the system's.
        cert, key: PEM files that tell who the client is (mTLS); both or none.

    Raises:
        InvalidConfig: one of `cert` and `key` alone.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidConfig("a client certificate and its key go together: give both, or none", key="cert")

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError: a file cannot be read."""
        ca, key, cert = (None if path is None else path.read_bytes() for path in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


@dataclass(frozen=True, slots=True)
class Method(Generic[Asks, Gets]):
    """One method of the service: its path, and what it takes and gives."""

    path: str
    asks: type[Asks]
    gets: type[Gets]


class Connection:
    """One channel, and what every call on it carries. Made in the event loop that uses it."""

    def __init__(self, address: str, *, api_key: str | None, tls: Tls | None) -> None:
        self.address = address
        self.metadata = aio.Metadata(*([("authorization", f"Bearer {api_key}")] if api_key else []))
        if tls is None:
            self.channel = aio.insecure_channel(address, options=OPTIONS)
        else:
            self.channel = aio.secure_channel(address, tls.credentials(), options=OPTIONS)

    async def call(
        self,
        method: Method[Asks, Gets],
        request: Asks,
        *,
        timeout_s: float,
        done_by_then: type[Exception] | None = None,
    ) -> Gets:
        """One question, one answer; tried again while the service is unavailable and time is left.

        Args:
            done_by_then: what a later try meets where an earlier one was heard, and its answer lost: that is success.

        Raises:
            what the service raised. ClusterUnavailable, DeadlinePassed: it did not answer.
        """
        patience, is_first = Patience(timeout_s), True
        stub = self.channel.unary_unary(
            method.path, request_serializer=method.asks.SerializeToString, response_deserializer=method.gets.FromString
        )
        while True:
            try:
                return await stub(request, timeout=patience.left_s, metadata=self.metadata)
            except aio.AioRpcError as failed:
                error = self.told(failed)
                if not is_first and done_by_then is not None and isinstance(error, done_by_then):
                    return method.gets()
                if not may_be_back(failed):
                    raise error from None
                is_first = False
                await patience.pause(error, retry_after_s(failed))

    def told(self, error: aio.AioRpcError) -> Expected:
        """The service's own exception; where it is not the service that ended the call, one that names the address."""
        if may_be_back(error) and not is_the_services(error):
            return ClusterUnavailable(
                f"no service answers at {self.address} ({error.details()}): is it running?", address=self.address
            )
        return error_of(error)

    async def close(self) -> None:
        await self.channel.close()


def may_be_back(error: aio.AioRpcError) -> bool:
    """Whether the service is away, by its own word or because the connection broke, and the same call may succeed."""
    return error.code() is StatusCode.UNAVAILABLE or (error.code() in _BROKEN and not is_the_services(error))


def is_the_services(error: aio.AioRpcError) -> bool:
    """Whether the service itself gave this status: it gives details with each."""
    return any(name == "grpc-status-details-bin" for name, _ in error.trailing_metadata() or ())
