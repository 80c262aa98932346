"""StreamService: making, finding, changing and deleting streams."""

from __future__ import annotations

from collections.abc import Mapping

from cacheflow_ray.actors.api import ClusterPort, StreamView
from cacheflow_ray.service.calls import Call
from cacheflow_ray.service.keys import Tenant
from cacheflow_ray.service.limits import Turnstile, prefix_of
from cacheflow_ray.service.messages import (
    Page,
    read_changes,
    read_new_stream,
    read_page,
    write_page_token,
    write_stream,
)
from cacheflow_ray.service.tenants import qualified
from cacheflow_ray.service.v1.stream_pb2 import (
    CreateStreamRequest,
    CreateStreamResponse,
    DeleteStreamRequest,
    DeleteStreamResponse,
    GetStreamRequest,
    GetStreamResponse,
    ListStreamsRequest,
    ListStreamsResponse,
    UpdateStreamRequest,
    UpdateStreamResponse,
)

#: Streams fetched at once where a page leaves some out.
_FETCHED = 1000


class StreamServicer:
    """Streams of the caller's tenant; another's are not there."""

    def __init__(self, cluster: ClusterPort, turnstile: Turnstile) -> None:
        self._cluster, self._turnstile = cluster, turnstile

    async def create_stream(self, request: CreateStreamRequest, call: Call) -> CreateStreamResponse:
        new = read_new_stream(request.stream, call.tenant.name)
        async with self._turnstile.making(self._cluster, call.tenant, new.stream_id):
            return CreateStreamResponse(stream=write_stream(await self._cluster.create_stream(new)))

    async def get_stream(self, request: GetStreamRequest, call: Call) -> GetStreamResponse:
        stream_id = qualified(call.tenant.name, request.name)
        return GetStreamResponse(stream=write_stream(await self._cluster.get_stream(stream_id)))

    async def list_streams(self, request: ListStreamsRequest, call: Call) -> ListStreamsResponse:
        page = read_page(request, call.tenant.name)
        found = await self._found(page, call.tenant)
        shown = found[: page.limit]
        return ListStreamsResponse(
            streams=map(write_stream, shown),
            next_page_token=write_page_token(shown[-1]) if len(found) > page.limit else "",
        )

    async def update_stream(self, request: UpdateStreamRequest, call: Call) -> UpdateStreamResponse:
        changes = read_changes(request, call.tenant.name)
        view = await self._cluster.update_stream(changes.stream_id, labels=changes.labels, retention=changes.retention)
        return UpdateStreamResponse(stream=write_stream(view))

    async def delete_stream(self, request: DeleteStreamRequest, call: Call) -> DeleteStreamResponse:
        await self._cluster.delete_stream(qualified(call.tenant.name, request.name))
        return DeleteStreamResponse()

    async def _found(self, page: Page, tenant: Tenant) -> list[StreamView]:
        """The page's streams, and one more where the page is not the last."""
        found: list[StreamView] = []
        after, wanted = page.after, page.limit + 1
        fetched = _FETCHED if page.labels else wanted
        while len(found) < wanted:
            views = await self._cluster.list_streams(prefix_of(tenant), after, fetched)
            found += [view for view in views if view.tenant == tenant.name and _has(view, page.labels)]
            if len(views) < fetched:
                break
            after = views[-1].info.stream
        return found[:wanted]


def _has(view: StreamView, labels: Mapping[str, str]) -> bool:
    return labels.items() <= view.info.labels.items()
