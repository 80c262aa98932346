"""A stream that is there afterwards: made, or found as it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.catalog import READ_FROM, SOURCE_URI
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.spec import StreamSpec, check_fingerprint
from cacheflow_ray.models import VideoModel
from memory_store.errors import StreamNotFound
from memory_store.records import StreamRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedStream:
    """A stream to be made, or gone on with.

    Args:
        settings: what is not set in it is as the stream was made, or as the model recommends where it is new.
        source_uri: what the service itself reads it from; None: it is pushed.
        labels, tenant: of a new stream.
    """

    stream_id: str
    settings: StreamSettings | None = None
    source_uri: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tenant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What is wanted of a stream, beside the one there is. `stored`: None where there is none yet."""

    wanted: WantedStream
    settings: StreamSettings
    stored: StreamSpec | None

    def spec(self, model: VideoModel, source_identity: str) -> StreamSpec:
        """The stream's, once its source is known. Raises: SettingsMismatch, InvalidConfig."""
        spec = StreamSpec.resolve(self.settings, model, source_identity)
        if self.stored is None:
            return spec
        spec.check_continues(self.stored, self.wanted.stream_id)
        return self.stored

    def record(self, model: VideoModel, spec: StreamSpec, read_from: str | None = None) -> StreamRecord:
        """Of the new stream. `read_from`: what the caller itself reads it from, to be kept (`sources.address_of`)."""
        sources = {SOURCE_URI: self.wanted.source_uri, READ_FROM: read_from}
        return StreamRecord(
            stream_id=self.wanted.stream_id,
            fingerprint=model.fingerprint,
            settings=spec.as_settings() | {name: uri for name, uri in sources.items() if uri is not None},
            labels=dict(self.wanted.labels),
            created_s=time(),
            tenant=self.wanted.tenant,
        )


def look(backend: Backend, wanted: WantedStream) -> Looked:
    """Nothing is written. Raises: FingerprintMismatch."""
    settings = backend.model.recommended.stream_settings(wanted.settings)
    try:
        record = backend.store.get_stream(wanted.stream_id)
    except StreamNotFound:
        return Looked(wanted=wanted, settings=settings, stored=None)
    check_fingerprint(record, backend.model)
    stored = StreamSpec.of(record)
    return Looked(wanted=wanted, settings=stored.continued_by(wanted.settings or StreamSettings()), stored=stored)


def ensure_stream(
    backend: Backend, wanted: WantedStream, source_identity: str = "", read_from: str | None = None
) -> StreamSpec:
    """Make the stream, or see that the one there is goes with what is wanted.

    Args:
        source_identity: of what the frames come from (`SourceInfo.identity`); "" where nothing is known of it.
        read_from: what the caller itself reads it from (`sources.address_of`).

    Raises:
        SettingsMismatch, FingerprintMismatch, StreamExists: it was made otherwise. InvalidConfig, InvalidRecord.
    """
    looked = look(backend, wanted)
    spec = looked.spec(backend.model, source_identity)
    if looked.stored is None:
        return StreamSpec.of(backend.store.create_stream(looked.record(backend.model, spec, read_from)))
    return spec
