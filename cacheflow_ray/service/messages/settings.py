"""Stream settings and retention: what is absent on the wire is what is not set, or None, inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.messages.fields import (
    nanoseconds,
    read_enum,
    read_time_range,
    within,
    write_enum,
    write_time_range,
)
from cacheflow_ray.service.v1 import stream_pb2
from memory_store.records import JsonValue, Retention

_Settings = stream_pb2.StreamSettings

_REFERENCES = {_Settings.REFERENCE_PREVIOUS: "previous", _Settings.REFERENCE_LAST_KEPT: "last_kept"}
_KV_CODECS = {_Settings.KV_CODEC_NATIVE: "native", _Settings.KV_CODEC_FP8: "fp8", _Settings.KV_CODEC_INT8: "int8"}
_OPTIONAL = ("fps", "tau", "adaptive", "block_size", "window_blocks", "summary", "pixel_gate")

#: What a Duration may hold, in seconds.
_MAX_DURATION_S = 315_576_000_000


def read_settings(message: stream_pb2.StreamSettings, field: str = "settings") -> StreamSettings:
    """Only what is given is set. Raises: UsageError, InvalidConfig: naming the field."""
    values = _values(message, lambda table, number, name: read_enum(table, number, f"{field}.{name}"))
    with within(field):
        return StreamSettings(**values)


def read_stored_settings(message: stream_pb2.StreamSettings) -> dict[str, JsonValue]:
    """Settings as a server tells them; values newer than this client are left out."""
    return _values(message, lambda table, number, name: table.get(number))


def _values(
    message: stream_pb2.StreamSettings, choose: Callable[[Mapping[Any, str], int, str], str | None]
) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
    if message.every_frame:
        values["fps"] = None
    if values.get("pixel_gate") == 0:
        values["pixel_gate"] = None
    for name, table in (("reference", _REFERENCES), ("kv_codec", _KV_CODECS)):
        value = choose(table, getattr(message, name), name)
        if value is not None:
            values[name] = value
    return values


def write_settings(settings: StreamSettings) -> stream_pb2.StreamSettings:
    """What is set. A block size, window or summary set to None (the model's own) is as good as not set."""
    return write_stored_settings({name: getattr(settings, name) for name in settings.model_fields_set})


def write_stored_settings(values: Mapping[str, Any]) -> stream_pb2.StreamSettings:
    """Settings by name, as a stream's record has them; names that are no settings are left out."""
    message = stream_pb2.StreamSettings(every_frame="fps" in values and values["fps"] is None)
    if "pixel_gate" in values and values["pixel_gate"] is None:
        message.pixel_gate = 0
    for name in _OPTIONAL:
        if values.get(name) is not None:
            setattr(message, name, values[name])
    if "reference" in values:
        message.reference = write_enum(_REFERENCES, values["reference"])
    if "kv_codec" in values:
        message.kv_codec = write_enum(_KV_CODECS, values["kv_codec"])
    return message


def read_retention(message: stream_pb2.Retention, field: str = "retention") -> Retention:
    """Raises: UsageError: a time that is negative or none, or a pinned range that is none."""
    return Retention(
        ttl_s=_read_duration(message.ttl, f"{field}.ttl") if message.HasField("ttl") else None,
        max_blocks=message.max_blocks if message.HasField("max_blocks") else None,
        max_bytes=message.max_bytes if message.HasField("max_bytes") else None,
        summary_only_after_s=(
            _read_duration(message.summary_only_after, f"{field}.summary_only_after")
            if message.HasField("summary_only_after")
            else None
        ),
        pinned=tuple(read_time_range(pinned, f"{field}.pinned") for pinned in message.pinned),
    )


def write_retention(retention: Retention) -> stream_pb2.Retention:
    """Times to the nanosecond; one longer than a Duration holds (10,000 years) is never, and absent."""
    return stream_pb2.Retention(
        ttl=_write_duration(retention.ttl_s),
        max_blocks=retention.max_blocks,
        max_bytes=retention.max_bytes,
        summary_only_after=_write_duration(retention.summary_only_after_s),
        pinned=[write_time_range(pinned) for pinned in retention.pinned],
    )


def _read_duration(message: Duration, field: str) -> float:
    if not (0 <= message.seconds <= _MAX_DURATION_S and 0 <= message.nanos < 10**9):
        raise UsageError(
            f"{field}: {message.seconds} s and {message.nanos} ns are not allowed; allowed: 0 to {_MAX_DURATION_S} s "
            "and 0 to 999999999 ns",
            field=field,
        )
    return (message.seconds * 10**9 + message.nanos) / 10**9


def _write_duration(duration_s: float | None) -> Duration | None:
    if duration_s is None or duration_s >= _MAX_DURATION_S:
        return None
    message = Duration()
    message.FromNanoseconds(nanoseconds(duration_s))
    return message
