"""What the converters share: parsing, enums, names, stretches of time, labels, and errors that name a field."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from cacheflow_ray.engine.scope import LibraryScope
from cacheflow_ray.errors import InvalidConfig, UsageError
from cacheflow_ray.service.tenants import qualified
from cacheflow_ray.service.v1 import common_pb2
from cacheflow_ray.types import TimeRange
from memory_store.errors import InvalidRecord

M = TypeVar("M", bound=Message)
K = TypeVar("K", bound=int)
V = TypeVar("V")

#: Streams of one question or search that are named.
MAX_STREAMS = 64

#: Characters of a pattern of names.
MAX_GLOB = 128
_GLOB = re.compile(rf"[A-Za-z0-9._*?\[\]!-]{{1,{MAX_GLOB}}}")

#: Labels of a stream, and bytes of a label's name and text.
MAX_LABELS = 64
MAX_LABEL_NAME_BYTES = 128
MAX_LABEL_BYTES = 1024


def parse(kind: type[M], data: bytes) -> M:
    """A message from its bytes. Raises: UsageError: they are none of that kind."""
    try:
        return kind.FromString(data)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise UsageError(f"the request is no {name}: use a client made for {name.rpartition('.')[0]}") from None


@contextmanager
def within(field: str, *, beside: Collection[str] = ()) -> Iterator[None]:
    """What is wrong inside is told by its whole path, `settings.tau` for `tau`; keys in `beside` are outside of it."""
    try:
        yield
    except InvalidConfig as error:
        key = str(error.ids.get("key", ""))
        if key in beside:
            raise
        raise InvalidConfig(f"{field}.{error}", key=f"{field}.{key}") from None
    except InvalidRecord as error:
        raise UsageError(f"{field}: {error}", field=field) from None


def read_enum(table: Mapping[K, V], number: int, field: str) -> V | None:
    """None where none is said. Raises: UsageError: no such number."""
    if number == 0:
        return None
    found = {int(known): value for known, value in table.items()}.get(number)
    if found is None:
        allowed = ", ".join(f"{int(known)} ({value})" for known, value in table.items())
        raise UsageError(f"{field}: {number} is not allowed; allowed: {allowed}", field=field)
    return found


def write_enum(table: Mapping[K, V], value: V) -> K:
    """The number of a value the table has."""
    return next(number for number, known in table.items() if known == value)


def read_streams(names: Sequence[str], tenant: str) -> tuple[str, ...]:
    """Ids of the streams named, each once, in order.

    Raises:
        UsageError: none, more than MAX_STREAMS, or a name that is none.
    """
    if not names:
        raise UsageError("streams: none is named; name 1 at least, or ask the library", field="streams")
    if len(names) > MAX_STREAMS:
        raise UsageError(f"streams: {len(names)} are too many; allowed: 1 to {MAX_STREAMS}", field="streams")
    return tuple(dict.fromkeys(qualified(tenant, name, field="streams") for name in names))


def read_where(
    names: Sequence[str], library: common_pb2.LibraryScope | None, tenant: str
) -> tuple[tuple[str, ...], LibraryScope | None]:
    """Ids of the streams named, or else the tenant's library, or what is wanted of it.

    Args:
        library: None: absent.

    Raises:
        UsageError: both, or neither; or a value that is not allowed.
    """
    if library is None:
        return read_streams(names, tenant), None
    if names:
        raise UsageError("library: streams are named, too; leave one of both out", field="library")
    glob = library.stream_glob or "*"
    if not _GLOB.fullmatch(glob):
        raise UsageError(
            f"library.stream_glob: {glob!r:.160} is no pattern of names; allowed: 1 to {MAX_GLOB} letters, digits, "
            "'.', '_', '-', '*', '?' and sets as [a-z] or [!ab]",
            field="library.stream_glob",
        )
    return (), LibraryScope(
        streams=glob,
        labels=read_labels(library.labels, "library.labels"),
        tenant=tenant,
        recorded=_read_recorded(library),
    )


def _read_recorded(library: common_pb2.LibraryScope) -> TimeRange | None:
    """Unix seconds; an end that is absent is open. Raises: UsageError: no time, or it ends before it starts."""
    ends = {
        end: _unix_s(getattr(library, name), f"library.{name}")
        for end, name in (("start_s", "recorded_from"), ("end_s", "recorded_to"))
        if library.HasField(name)
    }
    with within("library.recorded_to"):
        return TimeRange(**ends) if ends else None


def _unix_s(moment: Timestamp, field: str) -> float:
    try:
        return moment.ToNanoseconds() / 10**9
    except ValueError as error:  # of years before 1 or after 9999
        raise UsageError(f"{field}: {error}", field=field) from None


def write_library(scope: LibraryScope | None) -> common_pb2.LibraryScope | None:
    """Raises: UsageError: a tenant, whom the key tells."""
    if scope is None:
        return None
    if scope.tenant is not None:
        raise UsageError("library.tenant: a server knows whose it is by the key; leave it out", field="library.tenant")
    message = common_pb2.LibraryScope(stream_glob="" if scope.streams == "*" else scope.streams, labels=scope.labels)
    if scope.recorded is not None:
        ends = (message.recorded_from, scope.recorded.start_s), (message.recorded_to, scope.recorded.end_s)
        for end, time_s in ends:
            if math.isfinite(time_s):
                end.FromNanoseconds(nanoseconds(time_s))
    return message


def read_time_range(message: common_pb2.TimeRange, field: str) -> TimeRange:
    """An end that is absent is open. Raises: UsageError: NaN, or it ends before it starts."""
    with within(field):
        return TimeRange(
            start_s=message.start_s if message.HasField("start_s") else -math.inf,
            end_s=message.end_s if message.HasField("end_s") else math.inf,
        )


def write_time_range(time_range: TimeRange) -> common_pb2.TimeRange:
    """An end that is open is absent."""
    message = common_pb2.TimeRange()
    if time_range.start_s != -math.inf:
        message.start_s = time_range.start_s
    if time_range.end_s != math.inf:
        message.end_s = time_range.end_s
    return message


def nanoseconds(time_s: float) -> int:
    """To the nearest; the time divided by 10**9 again is the same number from a hundred days (2**23 s) on."""
    return round(Fraction(time_s) * 10**9)


def read_labels(labels: Mapping[str, str], field: str = "labels") -> dict[str, str]:
    """Raises: UsageError: too many, too long, or without a name."""
    if len(labels) > MAX_LABELS:
        raise UsageError(f"{field}: {len(labels)} are too many; allowed: up to {MAX_LABELS}", field=field)
    for name, text in labels.items():
        if not 0 < len(name.encode()) <= MAX_LABEL_NAME_BYTES or len(text.encode()) > MAX_LABEL_BYTES:
            raise UsageError(
                f"{field}: label {name!r:.160} is not allowed; allowed: a name of 1 to {MAX_LABEL_NAME_BYTES} bytes "
                f"and a text of up to {MAX_LABEL_BYTES}",
                field=field,
            )
    return dict(labels)
