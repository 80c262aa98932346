"""Frames the caller has in hand, pushed into one stream step by step."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from cacheflow_ray.config import StreamSettings
from cacheflow_ray.engine.batch import StageTimes, commit, encode_frames
from cacheflow_ray.engine.creating import WantedStream, ensure_stream
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.engine.stream import StreamEncoder
from cacheflow_ray.media import Frame
from cacheflow_ray.models.family import VISION_BATCH


class StreamWriter:
    """Writes one stream frame by frame; between two pushes it can be asked about as it then stands.

    Creates the stream, or goes on with it: frames it has already are counted as duplicates. Used by one thread.

    Args:
        backend: model and store.
        stream: its name.
        settings: what is not set in it is as the stream was made, or as the model recommends where it is new.
        source_identity: of what the frames come from (`SourceInfo.identity`); "" where nothing is known of it.

    Raises:
        SettingsMismatch, FingerprintMismatch: the stream was made otherwise.
    """

    def __init__(
        self, backend: Backend, stream: str, *, settings: StreamSettings | None = None, source_identity: str = ""
    ) -> None:
        self._backend, self._times = backend, StageTimes()
        spec = ensure_stream(backend, WantedStream(stream_id=stream, settings=settings), source_identity)
        self._encoder = StreamEncoder(backend, stream, spec)

    @property
    def state(self) -> EncoderState:
        """Progress and totals: `next_seq`, `last_timestamp_s`, `counters`."""
        return self._encoder.state

    def push(self, frames: Iterable[Frame]) -> None:
        """Take frames in, in order of seq; when it returns they are durable.

        A frame that waits for its partner (models that merge frames in time) is not seen by a question yet.

        Raises:
            InvalidFeatures, StoreError.
        """
        step = VISION_BATCH * self._backend.model.vision.frames_per_unit
        left = iter(frames)
        while some := list(islice(left, step)):
            encode_frames(self._backend.model, {self._encoder: some}, self._times)
            commit(self._backend.store, [self._encoder], self._times)

    def finish(self) -> None:
        """No frames will follow: one that waited for its partner goes in alone."""
        encode_frames(self._backend.model, {self._encoder: ()}, self._times, last=True)
        self._encoder.finish()
        commit(self._backend.store, [self._encoder], self._times)
