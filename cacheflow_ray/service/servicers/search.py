"""SearchService: moments by text."""

from __future__ import annotations

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.service.calls import Call
from cacheflow_ray.service.limits import Turnstile
from cacheflow_ray.service.messages import read_search, write_found
from cacheflow_ray.service.v1.search_pb2 import SearchRequest, SearchResponse


class SearchServicer:
    """Finds moments; nothing is generated."""

    def __init__(self, cluster: ClusterPort, turnstile: Turnstile) -> None:
        self._cluster, self._turnstile = cluster, turnstile

    async def search(self, request: SearchRequest, call: Call) -> SearchResponse:
        wanted = read_search(request, call.tenant.name)
        with self._turnstile.question(call.tenant, len(wanted.streams)):
            found = await self._cluster.search(wanted)
        return write_found(found, call.tenant.name)
