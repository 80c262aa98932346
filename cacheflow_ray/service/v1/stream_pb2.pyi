import datetime

from cacheflow_ray.service.v1 import common_pb2 as _common_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stream(_message.Message):
    __slots__ = ("name", "settings", "labels", "retention", "source", "model", "fingerprint", "create_time", "totals", "complete", "warning", "grid_rows", "grid_cols", "frames_per_unit")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    GRID_ROWS_FIELD_NUMBER: _ClassVar[int]
    GRID_COLS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    settings: StreamSettings
    labels: _containers.ScalarMap[str, str]
    retention: Retention
    source: Source
    model: str
    fingerprint: str
    create_time: _timestamp_pb2.Timestamp
    totals: StreamTotals
    complete: bool
    warning: str
    grid_rows: int
    grid_cols: int
    frames_per_unit: int
    def __init__(self, name: _Optional[str] = ..., settings: _Optional[_Union[StreamSettings, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., retention: _Optional[_Union[Retention, _Mapping]] = ..., source: _Optional[_Union[Source, _Mapping]] = ..., model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., totals: _Optional[_Union[StreamTotals, _Mapping]] = ..., complete: _Optional[bool] = ..., warning: _Optional[str] = ..., grid_rows: _Optional[int] = ..., grid_cols: _Optional[int] = ..., frames_per_unit: _Optional[int] = ...) -> None: ...

class StreamSettings(_message.Message):
    __slots__ = ("fps", "every_frame", "tau", "reference", "adaptive", "block_size", "window_blocks", "summary", "pixel_gate", "kv_codec")
    class Reference(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REFERENCE_UNSPECIFIED: _ClassVar[StreamSettings.Reference]
        REFERENCE_PREVIOUS: _ClassVar[StreamSettings.Reference]
        REFERENCE_LAST_KEPT: _ClassVar[StreamSettings.Reference]
    REFERENCE_UNSPECIFIED: StreamSettings.Reference
    REFERENCE_PREVIOUS: StreamSettings.Reference
    REFERENCE_LAST_KEPT: StreamSettings.Reference
    class KvCodec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KV_CODEC_UNSPECIFIED: _ClassVar[StreamSettings.KvCodec]
        KV_CODEC_NATIVE: _ClassVar[StreamSettings.KvCodec]
        KV_CODEC_FP8: _ClassVar[StreamSettings.KvCodec]
        KV_CODEC_INT8: _ClassVar[StreamSettings.KvCodec]
    KV_CODEC_UNSPECIFIED: StreamSettings.KvCodec
    KV_CODEC_NATIVE: StreamSettings.KvCodec
    KV_CODEC_FP8: StreamSettings.KvCodec
    KV_CODEC_INT8: StreamSettings.KvCodec
    FPS_FIELD_NUMBER: _ClassVar[int]
    EVERY_FRAME_FIELD_NUMBER: _ClassVar[int]
    TAU_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    PIXEL_GATE_FIELD_NUMBER: _ClassVar[int]
    KV_CODEC_FIELD_NUMBER: _ClassVar[int]
    fps: float
    every_frame: bool
    tau: float
    reference: StreamSettings.Reference
    adaptive: bool
    block_size: int
    window_blocks: int
    summary: str
    pixel_gate: float
    kv_codec: StreamSettings.KvCodec
    def __init__(self, fps: _Optional[float] = ..., every_frame: _Optional[bool] = ..., tau: _Optional[float] = ..., reference: _Optional[_Union[StreamSettings.Reference, str]] = ..., adaptive: _Optional[bool] = ..., block_size: _Optional[int] = ..., window_blocks: _Optional[int] = ..., summary: _Optional[str] = ..., pixel_gate: _Optional[float] = ..., kv_codec: _Optional[_Union[StreamSettings.KvCodec, str]] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("ttl", "max_blocks", "max_bytes", "summary_only_after", "pinned")
    TTL_FIELD_NUMBER: _ClassVar[int]
    MAX_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_ONLY_AFTER_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    ttl: _duration_pb2.Duration
    max_blocks: int
    max_bytes: int
    summary_only_after: _duration_pb2.Duration
    pinned: _containers.RepeatedCompositeFieldContainer[_common_pb2.TimeRange]
    def __init__(self, ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_blocks: _Optional[int] = ..., max_bytes: _Optional[int] = ..., summary_only_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., pinned: _Optional[_Iterable[_Union[_common_pb2.TimeRange, _Mapping]]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("uri",)
    URI_FIELD_NUMBER: _ClassVar[int]
    uri: str
    def __init__(self, uri: _Optional[str] = ...) -> None: ...

class StreamTotals(_message.Message):
    __slots__ = ("frames", "tokens_seen", "tokens_kept", "duplicate_frames", "out_of_order_frames", "blocks", "stored_bytes", "tail_tokens", "start_s", "end_s", "next_seq")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_SEEN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_KEPT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_ORDER_FRAMES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TAIL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    frames: int
    tokens_seen: int
    tokens_kept: int
    duplicate_frames: int
    out_of_order_frames: int
    blocks: int
    stored_bytes: int
    tail_tokens: int
    start_s: float
    end_s: float
    next_seq: int
    def __init__(self, frames: _Optional[int] = ..., tokens_seen: _Optional[int] = ..., tokens_kept: _Optional[int] = ..., duplicate_frames: _Optional[int] = ..., out_of_order_frames: _Optional[int] = ..., blocks: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., tail_tokens: _Optional[int] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., next_seq: _Optional[int] = ...) -> None: ...

class CreateStreamRequest(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ...) -> None: ...

class CreateStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ...) -> None: ...

class GetStreamRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ...) -> None: ...

class ListStreamsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListStreamsResponse(_message.Message):
    __slots__ = ("streams", "next_page_token")
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[Stream]
    next_page_token: str
    def __init__(self, streams: _Optional[_Iterable[_Union[Stream, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateStreamRequest(_message.Message):
    __slots__ = ("stream", "update_mask")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ...) -> None: ...

class DeleteStreamRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteStreamResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
