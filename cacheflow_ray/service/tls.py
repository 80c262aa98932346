"""Certificates of the server, and whose clients' it takes."""

from __future__ import annotations

from pathlib import Path

import grpc

from cacheflow_ray.config import TlsOptions
from cacheflow_ray.errors import InvalidConfig


def server_credentials(options: TlsOptions) -> grpc.ServerCredentials:
    """Raises: InvalidConfig: a file cannot be read, or holds no PEM."""
    client_ca = _pem(options.client_ca, "client_ca") if options.client_ca else None
    return grpc.ssl_server_credentials(
        [(_pem(options.key, "key"), _pem(options.cert, "cert"))],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def _pem(path: Path, key: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"tls.{key}: {path} cannot be read: {error.strerror}", key=f"tls.{key}") from None
    if b"-----BEGIN " not in content:
        raise InvalidConfig(f"tls.{key}: {path} is no PEM file", key=f"tls.{key}")
    return content
