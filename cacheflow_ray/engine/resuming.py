"""Where a source goes on for a stream that has some of it, and whether anything is to come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.media import Frame, FrameSource


def frames_after(source: FrameSource, spec: StreamSpec, state: EncoderState) -> Iterator[Frame]:
    """The source's frames the stream does not have yet.

    A file is read again up to them. A camera has no past: its new frames follow the last one it gave, a sampling
    interval later, for a stream's time is the time that was watched.
    """
    seq = state.next_seq
    if not source.info.is_live or not seq:
        return (frame for frame in source if frame.seq >= seq)
    last_s = state.pending[-1].timestamp_s if state.pending else state.last_timestamp_s or 0.0
    after_s = last_s + 1 / (spec.fps or source.info.avg_fps or 1.0)
    return (replace(frame, seq=frame.seq + seq, timestamp_s=frame.timestamp_s + after_s) for frame in source)


def is_complete(source: FrameSource) -> bool:
    """Whether there is nothing to come: a camera may always go on, a download that broke off can be tried again."""
    return not source.info.is_live and not (source.info.is_address and source.report.reason)
