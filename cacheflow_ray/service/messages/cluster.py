"""The cluster's status, and how many of its actors there shall be."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from cacheflow_ray.actors.api import ActorStatus, ClusterStatus, LiveStream
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.messages.streams import read_totals, write_totals
from cacheflow_ray.service.v1 import admin_pb2

_Actor = admin_pb2.ActorStatus

_ROLES = {
    _Actor.ROLE_ENCODER: "encoder",
    _Actor.ROLE_STORE: "store",
    _Actor.ROLE_ANSWERER: "answerer",
    _Actor.ROLE_GATEWAY: "gateway",
    _Actor.ROLE_DIRECTOR: "director",
}

MAX_ACTORS = 1024


def metrics_of(exposition: str) -> dict[str, float]:
    """Samples of a Prometheus text that have no labels, by name."""
    families = text_string_to_metric_families(exposition)
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


def read_status(message: admin_pb2.GetStatusResponse) -> ClusterStatus:
    """As a server tells it; an exposition holds the samples without labels, and nothing else."""
    return ClusterStatus(
        actors=tuple(_read_actor(actor) for actor in message.actors),
        streams=tuple(
            LiveStream(
                stream_id=stream.name,
                encoder=stream.encoder,
                position=read_totals(stream.totals, shed=stream.shed_frames),
                queued=stream.queued_frames,
            )
            for stream in message.streams
        ),
    )


def _read_actor(message: admin_pb2.ActorStatus) -> ActorStatus:
    return ActorStatus(
        name=message.name,
        role=_ROLES.get(message.role, "unknown"),
        alive=message.alive,
        pid=message.pid,
        resident_bytes=message.resident_bytes,
        node=message.node,
        exposition="".join(f"{name} {value!r}\n" for name, value in sorted(message.metrics.items())),
    )


def write_status(status: ClusterStatus) -> admin_pb2.GetStatusResponse:
    """Streams by their ids, whosever they are."""
    return admin_pb2.GetStatusResponse(
        actors=[_write_actor(actor) for actor in status.actors],
        streams=[
            admin_pb2.LiveStream(
                name=stream.stream_id,
                encoder=stream.encoder,
                totals=write_totals(stream.position),
                queued_frames=stream.queued,
                shed_frames=stream.position.shed,
            )
            for stream in status.streams
        ],
    )


def _write_actor(actor: ActorStatus) -> admin_pb2.ActorStatus:
    roles = {name: number for number, name in _ROLES.items()}
    return admin_pb2.ActorStatus(
        name=actor.name,
        role=roles.get(actor.role, _Actor.ROLE_UNSPECIFIED),
        alive=actor.alive,
        pid=actor.pid,
        resident_bytes=actor.resident_bytes,
        node=actor.node,
        metrics=metrics_of(actor.exposition),
    )


def read_scale(message: admin_pb2.ScaleRequest) -> tuple[int | None, int | None]:
    """Encoders and answerers wanted, None: as many as there are. Raises: UsageError: none, or too many."""
    return _read_count(message, "encoders"), _read_count(message, "answerers")


def _read_count(message: admin_pb2.ScaleRequest, field: str) -> int | None:
    if not message.HasField(field):
        return None
    count: int = getattr(message, field)
    if not 1 <= count <= MAX_ACTORS:
        raise UsageError(f"{field}: {count} is not allowed; allowed: 1 to {MAX_ACTORS}", field=field)
    return count
