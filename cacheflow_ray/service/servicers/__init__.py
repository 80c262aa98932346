"""What each RPC does: read the request, ask the cluster, write the response."""

from __future__ import annotations

from cacheflow_ray.service.servicers.admin import AdminServicer
from cacheflow_ray.service.servicers.answer import AnswerServicer
from cacheflow_ray.service.servicers.ingest import IngestServicer
from cacheflow_ray.service.servicers.library import LibraryServicer
from cacheflow_ray.service.servicers.operations import OperationsServicer
from cacheflow_ray.service.servicers.search import SearchServicer
from cacheflow_ray.service.servicers.streams import StreamServicer

__all__ = [
    "AdminServicer",
    "AnswerServicer",
    "IngestServicer",
    "LibraryServicer",
    "OperationsServicer",
    "SearchServicer",
    "StreamServicer",
]
