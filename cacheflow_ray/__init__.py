"""CacheFlow-Ray: a long-term memory for video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacheflow_ray.service.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The clients, imported when they are first asked for: whoever imports something else does not wait for them."""
    if name in ("AsyncClient", "Client"):
        from cacheflow_ray.service import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
