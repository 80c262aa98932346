"""A stream that is there afterwards: made, or found as it was made."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import time

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.catalog import SOURCE_URI
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.spec import StreamSpec, check_fingerprint
from memory_store.errors import StreamNotFound
from memory_store.records import StreamRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedStream:
    """A stream to be made, or gone on with.

    Args:
        settings: what is not set in it is as the stream was made, or as the model recommends where it is new.
        source_identity: of what the frames come from (`SourceInfo.identity`); "" where nothing is known of it.
        source_uri: what the service itself reads it from; None: it is pushed.
        labels, tenant: of a new stream.
    """

    stream_id: str
    settings: StreamSettings | None = None
    source_identity: str = ""
    source_uri: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tenant: str = ""


def ensure_stream(backend: Backend, wanted: WantedStream) -> StreamSpec:
    """Make the stream, or see that the one there is goes with what is wanted.

    Raises:
        SettingsMismatch, FingerprintMismatch, StreamExists: it was made otherwise. InvalidConfig, InvalidRecord.
    """
    stored: StreamSpec | None = None
    settings = backend.model.recommended.stream_settings(wanted.settings)
    with suppress(StreamNotFound):
        record = backend.store.get_stream(wanted.stream_id)
        check_fingerprint(record, backend.model)
        stored = StreamSpec.of(record)
        settings = stored.continued_by(wanted.settings or StreamSettings())
    spec = StreamSpec.resolve(settings, backend.model, wanted.source_identity)
    if stored is not None:
        spec.check_continues(stored, wanted.stream_id)
        return stored
    record = StreamRecord(
        stream_id=wanted.stream_id,
        fingerprint=backend.model.fingerprint,
        settings=spec.as_settings() | ({} if wanted.source_uri is None else {SOURCE_URI: wanted.source_uri}),
        labels=dict(wanted.labels),
        created_s=time(),
        tenant=wanted.tenant,
    )
    return StreamSpec.of(backend.store.create_stream(record))
