"""Errors on the wire: what a client is told when an exception ends its call, and the exception made of that again.

    exception  --status_of-->  status code, message, google.rpc details  --error_of-->  the same exception

A call ends with INTERNAL only when something happened that nobody thought of. The client then reads no more than the
request's id; the log has the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc_status import rpc_status

from cacheflow_ray import errors
from cacheflow_ray.errors import CacheFlowError, ClusterUnavailable, DeadlinePassed, ServiceError
from cacheflow_ray.service.details import DOMAIN, clipped, details_of, pack
from cacheflow_ray.service.tenants import without_tenant
from memory_store import errors as store
from memory_store.errors import StoreError

Expected: TypeAlias = CacheFlowError | StoreError

#: Every class of both error trees, in their order.
CODES: Mapping[type[Expected], StatusCode] = {
    errors.CacheFlowError: StatusCode.INTERNAL,
    errors.UsageError: StatusCode.INVALID_ARGUMENT,
    errors.EmptyQuestion: StatusCode.INVALID_ARGUMENT,
    errors.QuestionTooLong: StatusCode.INVALID_ARGUMENT,
    errors.SettingsMismatch: StatusCode.FAILED_PRECONDITION,
    errors.InvalidConfig: StatusCode.INVALID_ARGUMENT,
    errors.BadAnnotations: StatusCode.INVALID_ARGUMENT,
    errors.MediaError: StatusCode.INVALID_ARGUMENT,
    errors.SourceNotFound: StatusCode.NOT_FOUND,
    errors.UnsupportedMedia: StatusCode.INVALID_ARGUMENT,
    errors.BrokenMedia: StatusCode.INVALID_ARGUMENT,
    errors.ModelError: StatusCode.FAILED_PRECONDITION,
    errors.UnsupportedModel: StatusCode.FAILED_PRECONDITION,
    errors.ModelLoadError: StatusCode.FAILED_PRECONDITION,
    errors.JudgeFailed: StatusCode.UNAVAILABLE,
    errors.InvalidFeatures: StatusCode.FAILED_PRECONDITION,
    errors.ServiceError: StatusCode.INTERNAL,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    errors.LimitExceeded: StatusCode.RESOURCE_EXHAUSTED,
    errors.JobNotFound: StatusCode.NOT_FOUND,
    errors.DeadlinePassed: StatusCode.DEADLINE_EXCEEDED,
    errors.EncoderLost: StatusCode.UNAVAILABLE,
    errors.ClusterUnavailable: StatusCode.UNAVAILABLE,
    errors.NothingToAnswer: StatusCode.FAILED_PRECONDITION,
    store.StoreError: StatusCode.INTERNAL,
    store.InvalidRecord: StatusCode.INVALID_ARGUMENT,
    store.StreamNotFound: StatusCode.NOT_FOUND,
    store.StreamExists: StatusCode.ALREADY_EXISTS,
    store.BlockNotFound: StatusCode.NOT_FOUND,
    store.KvDropped: StatusCode.FAILED_PRECONDITION,
    store.BlockConflict: StatusCode.DATA_LOSS,
    store.FingerprintMismatch: StatusCode.FAILED_PRECONDITION,
    store.EpochFenced: StatusCode.ABORTED,
    store.CorruptRecord: StatusCode.DATA_LOSS,
    store.UnsupportedFormat: StatusCode.FAILED_PRECONDITION,
    store.QuotaExceeded: StatusCode.RESOURCE_EXHAUSTED,
    store.StoreLocked: StatusCode.UNAVAILABLE,
    store.StoreFull: StatusCode.RESOURCE_EXHAUSTED,
    store.StoreUnavailable: StatusCode.UNAVAILABLE,
}

#: A message takes at most so much, for details and message share the few kilobytes of a response's trailer.
_MAX_MESSAGE_BYTES = 800

#: Arguments of the exceptions that no id can be called.
_TAKEN = frozenset({"self", "message"})


def code_of(error: BaseException) -> StatusCode:
    """Of the nearest class the table has; INTERNAL of an exception outside both trees."""
    known = _known(type(error))
    return CODES[known] if known else StatusCode.INTERNAL


def status_of(error: BaseException, *, tenant: str = "", request_id: str = "") -> grpc.Status:
    """What ends the call: `code`, `details` (the message) and `trailing_metadata`, as `context.abort` takes them.

    Args:
        tenant: the caller's; names of its streams are told as it gave them.
        request_id: told in the details, and in the message where that is all there is to tell.
    """
    return rpc_status.to_status(message_of(error, tenant=tenant, request_id=request_id))  # type: ignore[no-any-return]


def message_of(error: BaseException, *, tenant: str = "", request_id: str = "") -> Status:
    """As `status_of`, as a message: what an operation ended with."""
    known = _known(type(error))
    if known is None:
        info = ErrorInfo(reason="INTERNAL", domain=DOMAIN)
        message = f"the service failed at this request, and its log says why: request {request_id or 'without id'}"
        return _status(StatusCode.INTERNAL, message, pack(info, request_id=request_id))
    assert isinstance(error, CacheFlowError | StoreError)
    message = clipped(without_tenant(tenant, str(error)), _MAX_MESSAGE_BYTES)
    details = details_of(error, reason=reason_of(known), message=message, tenant=tenant)
    return _status(CODES[known], message, pack(*details, request_id=request_id))


def error_of(error: grpc.RpcError) -> Expected:
    """The exception that ended the call at the server, with its message and its ids, which are strings now.

    Where the answer was not the service's own (no connection, a proxy, the client's deadline): ClusterUnavailable for
    UNAVAILABLE, DeadlinePassed for DEADLINE_EXCEEDED, else ServiceError; the id `code` names the status.
    """
    told_by_us = error_in(_rich_status(error) or Status())
    if told_by_us is not None:
        return told_by_us
    code = error.code() if hasattr(error, "code") else StatusCode.UNKNOWN
    told = error.details() if hasattr(error, "details") else str(error)
    return _FOREIGN.get(code, ServiceError)(f"{code.name}: {told or 'no more is known'}", code=code.name)


def error_in(status: Status) -> Expected | None:
    """The exception a message of `message_of` was made of; None: it was made by others."""
    for detail in status.details:
        info = ErrorInfo()
        if (
            detail.Is(ErrorInfo.DESCRIPTOR)
            and detail.Unpack(info)
            and info.domain == DOMAIN
            and info.reason in _CLASSES
        ):
            ids = {name: value for name, value in info.metadata.items() if name not in _TAKEN}
            return _CLASSES[info.reason](status.message, **ids)
    return None


def retry_after_s(error: grpc.RpcError) -> float | None:
    """How long the server asks to wait before the same call is made again; None: it does not say it helps."""
    status = _rich_status(error)
    for detail in status.details if status else ():
        info = RetryInfo()
        if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return None


def reason_of(cls: type[Expected]) -> str:
    """StreamNotFound -> STREAM_NOT_FOUND."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()


_FOREIGN = {StatusCode.UNAVAILABLE: ClusterUnavailable, StatusCode.DEADLINE_EXCEEDED: DeadlinePassed}

_CLASSES = {reason_of(cls): cls for cls in CODES}


def _known(cls: type[BaseException]) -> type[Expected] | None:
    return next((base for base in cls.__mro__ if base in CODES), None)


def _status(code: StatusCode, message: str, details: Status) -> Status:
    details.code, details.message = code.value[0], message
    return details


def _rich_status(error: grpc.RpcError) -> Status | None:
    """The details, where there are any that can be read."""
    try:
        return rpc_status.from_call(error)
    except (ValueError, DecodeError, AttributeError, KeyError):
        return None
