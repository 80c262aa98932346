"""A stream as a reader finds it, and the two things every reader needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from cacheflow_ray.engine.kv_cache import Again
from cacheflow_ray.engine.protocol import BlockStore
from cacheflow_ray.engine.spec import StreamSpec, check_fingerprint
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.errors import NothingToAnswer
from cacheflow_ray.models import VideoModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A model and the store its KV is in. `again`: how dropped KV is had again."""

    model: VideoModel
    store: BlockStore
    again: Again = field(default_factory=Again)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenedStream:
    """One stream at one moment: settings, what is not in blocks yet, and how many blocks there are."""

    stream_id: str
    spec: StreamSpec
    state: EncoderState
    num_blocks: int


def open_stream(backend: Backend, stream_id: str) -> OpenedStream:
    """Read a stream's record and state.

    Raises:
        StreamNotFound: no such stream.
        FingerprintMismatch: it was written with another model.
        NothingToAnswer: nothing was ever ingested into it.
    """
    record = backend.store.get_stream(stream_id)
    check_fingerprint(record, backend.model)
    stored = backend.store.load_state(stream_id)
    if stored is None or not stored.payload:
        raise NothingToAnswer(f"stream {stream_id!r} holds no video yet: ingest some first", stream=stream_id)
    return OpenedStream(
        stream_id=stream_id,
        spec=StreamSpec.of(record),
        state=EncoderState.from_bytes(stored.payload, backend.model.device),
        num_blocks=stored.num_blocks,
    )
