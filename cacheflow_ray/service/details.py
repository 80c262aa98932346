"""The google.rpc details of an error: what exactly is wrong, with what, and whether trying again may help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RequestInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from cacheflow_ray import errors
from cacheflow_ray.errors import CacheFlowError
from cacheflow_ray.service.tenants import without_tenant
from memory_store import errors as store
from memory_store.errors import StoreError

DOMAIN = "cacheflow"

#: Trying again may help after so many seconds.
RETRY_S: Mapping[type[CacheFlowError | StoreError], float] = {
    errors.LimitExceeded: 1.0,
    errors.EncoderLost: 1.0,
    errors.ClusterUnavailable: 1.0,
    store.StoreUnavailable: 5.0,
    store.StoreFull: 30.0,
}

#: What a missing or existing thing is called, and the ids that may name it.
_RESOURCES: Mapping[type[CacheFlowError | StoreError], tuple[str, tuple[str, ...]]] = {
    store.StreamNotFound: ("cacheflow.v1.Stream", ("stream_id", "stream")),
    store.StreamExists: ("cacheflow.v1.Stream", ("stream_id", "stream")),
    store.BlockNotFound: ("block", ("block_idx", "block_idxs")),
    errors.JobNotFound: ("google.longrunning.Operation", ("job_id",)),
    errors.SourceNotFound: ("cacheflow.v1.Source", ("source", "path", "uri")),
}

#: Ids told, and bytes of each.
_MAX_IDS = 8
_MAX_ID_BYTES = 160


def details_of(error: CacheFlowError | StoreError, *, reason: str, message: str, tenant: str) -> Iterator[Message]:
    """ErrorInfo always; the others where they say more. `message` is what the client reads."""
    ids = _as_strings(error.ids, tenant)
    yield ErrorInfo(reason=reason, domain=DOMAIN, metadata=ids)
    if isinstance(error, errors.UsageError | store.InvalidRecord):
        yield BadRequest(field_violations=_violations(error, ids.get("field") or ids.get("key") or "", message))
    if isinstance(error, errors.LimitExceeded | store.QuotaExceeded):
        subject = f"limit:{ids['limit']}" if "limit" in ids else f"tenant:{ids.get('tenant', tenant)}"
        yield QuotaFailure(violations=[QuotaFailure.Violation(subject=subject, description=message)])
    for cls, (kind, names) in _RESOURCES.items():
        if isinstance(error, cls):
            name = next((ids[name] for name in names if name in ids), "")
            yield ResourceInfo(resource_type=kind, resource_name=name, owner=tenant)
    for cls, delay_s in RETRY_S.items():
        if isinstance(error, cls):
            retry = RetryInfo()
            retry.retry_delay.FromMilliseconds(round(delay_s * 1000))
            yield retry


def _violations(error: CacheFlowError | StoreError, field: str, message: str) -> list[BadRequest.FieldViolation]:
    """The field at fault, or every setting that differs."""
    differ = error.ids.get("settings")
    if isinstance(error, errors.SettingsMismatch) and isinstance(differ, list | tuple):
        fixed = "is fixed, and another than asked for"
        return [BadRequest.FieldViolation(field=f"settings.{name}", description=fixed) for name in differ[:_MAX_IDS]]
    return [BadRequest.FieldViolation(field=field, description=message)]


def pack(*details: Message, request_id: str) -> Status:
    """A status that holds these details, and the request's id where it has one."""
    status = Status()
    for detail in (*details, *([RequestInfo(request_id=request_id)] if request_id else [])):
        status.details.add().Pack(detail)
    return status


def _as_strings(ids: Mapping[str, object], tenant: str) -> dict[str, str]:
    """(3, 5) -> "3,5"; what is None is left out."""
    told = [(name, value) for name, value in ids.items() if value is not None]
    return {name: clipped(without_tenant(tenant, _text(value)), _MAX_ID_BYTES) for name, value in told[:_MAX_IDS]}


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)


def clipped(text: str, num_bytes: int) -> str:
    """At most so many bytes of UTF-8, and nothing that is none (file names may hold such)."""
    whole = text.encode("utf-8", "replace")
    return whole.decode() if len(whole) <= num_bytes else whole[: num_bytes - 3].decode("utf-8", "ignore") + "..."
