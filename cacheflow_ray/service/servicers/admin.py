"""AdminService: what runs, and how much of it."""

from __future__ import annotations

from cacheflow_ray.actors.api import ClusterPort
from cacheflow_ray.errors import PermissionDenied
from cacheflow_ray.service.calls import Call
from cacheflow_ray.service.keys import ADMIN
from cacheflow_ray.service.messages import read_scale, write_status
from cacheflow_ray.service.v1.admin_pb2 import GetStatusRequest, GetStatusResponse, ScaleRequest, ScaleResponse


class AdminServicer:
    """For operators only."""

    def __init__(self, cluster: ClusterPort) -> None:
        self._cluster = cluster

    async def get_status(self, request: GetStatusRequest, call: Call) -> GetStatusResponse:
        _check_operator(call)
        return write_status(await self._cluster.status())

    async def scale(self, request: ScaleRequest, call: Call) -> ScaleResponse:
        _check_operator(call)
        wanted_encoders, wanted_answerers = read_scale(request)
        encoders, answerers = await self._cluster.scale(encoders=wanted_encoders, answerers=wanted_answerers)
        return ScaleResponse(encoders=encoders, answerers=answerers)


def _check_operator(call: Call) -> None:
    if not call.tenant.is_admin:
        raise PermissionDenied(f"only a key of the tenant {ADMIN!r} may do this", tenant=call.tenant.name)
