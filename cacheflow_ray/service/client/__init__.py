"""Clients of the service: they hide connections that break, credits, and where a stream goes on.

Client ──> AsyncClient ── call, ask ──> Connection            tried again while nobody answers (`retry`)
(`sync`)     (`aio`)   └─ ingest ──> Pushing ──> Feed          one connection after the other (`pushing`)
                                                  ├ FrameFeed   frames, kept until durable (`window`, `sources`)
                                                  └ FileFeed    a file as it is
"""

from cacheflow_ray.service.client.aio import AsyncClient
from cacheflow_ray.service.client.answer import AsyncAnswer
from cacheflow_ray.service.client.channel import Tls
from cacheflow_ray.service.client.index import AsyncIndexJob, IndexJob
from cacheflow_ray.service.client.ingest import IngestOptions
from cacheflow_ray.service.client.sources import FrameLike
from cacheflow_ray.service.client.sync import Answer, Client

__all__ = [
    "Answer",
    "AsyncAnswer",
    "AsyncClient",
    "AsyncIndexJob",
    "Client",
    "FrameLike",
    "IndexJob",
    "IngestOptions",
    "Tls",
]
