from cacheflow_ray.service.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IngestRequest(_message.Message):
    __slots__ = ("start", "frame", "chunk", "finish")
    START_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    start: IngestStart
    frame: Frame
    chunk: ContainerChunk
    finish: IngestFinish
    def __init__(self, start: _Optional[_Union[IngestStart, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., chunk: _Optional[_Union[ContainerChunk, _Mapping]] = ..., finish: _Optional[_Union[IngestFinish, _Mapping]] = ...) -> None: ...

class IngestStart(_message.Message):
    __slots__ = ("stream", "settings", "labels", "payload", "overload")
    class Payload(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PAYLOAD_UNSPECIFIED: _ClassVar[IngestStart.Payload]
        PAYLOAD_IMAGE: _ClassVar[IngestStart.Payload]
        PAYLOAD_RGB: _ClassVar[IngestStart.Payload]
        PAYLOAD_CONTAINER: _ClassVar[IngestStart.Payload]
    PAYLOAD_UNSPECIFIED: IngestStart.Payload
    PAYLOAD_IMAGE: IngestStart.Payload
    PAYLOAD_RGB: IngestStart.Payload
    PAYLOAD_CONTAINER: IngestStart.Payload
    class Overload(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OVERLOAD_UNSPECIFIED: _ClassVar[IngestStart.Overload]
        OVERLOAD_BLOCK: _ClassVar[IngestStart.Overload]
        OVERLOAD_DROP_OLDEST: _ClassVar[IngestStart.Overload]
        OVERLOAD_LOWER_FPS: _ClassVar[IngestStart.Overload]
    OVERLOAD_UNSPECIFIED: IngestStart.Overload
    OVERLOAD_BLOCK: IngestStart.Overload
    OVERLOAD_DROP_OLDEST: IngestStart.Overload
    OVERLOAD_LOWER_FPS: IngestStart.Overload
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    OVERLOAD_FIELD_NUMBER: _ClassVar[int]
    stream: str
    settings: _stream_pb2.StreamSettings
    labels: _containers.ScalarMap[str, str]
    payload: IngestStart.Payload
    overload: IngestStart.Overload
    def __init__(self, stream: _Optional[str] = ..., settings: _Optional[_Union[_stream_pb2.StreamSettings, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., payload: _Optional[_Union[IngestStart.Payload, str]] = ..., overload: _Optional[_Union[IngestStart.Overload, str]] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("seq", "timestamp_s", "data", "width", "height")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    timestamp_s: float
    data: bytes
    width: int
    height: int
    def __init__(self, seq: _Optional[int] = ..., timestamp_s: _Optional[float] = ..., data: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class ContainerChunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class IngestFinish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("started", "ack", "finished")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    started: IngestStarted
    ack: IngestAck
    finished: IngestFinished
    def __init__(self, started: _Optional[_Union[IngestStarted, _Mapping]] = ..., ack: _Optional[_Union[IngestAck, _Mapping]] = ..., finished: _Optional[_Union[IngestFinished, _Mapping]] = ...) -> None: ...

class IngestStarted(_message.Message):
    __slots__ = ("resume_from_seq", "credit_frames", "credit_bytes", "complete")
    RESUME_FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FRAMES_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    resume_from_seq: int
    credit_frames: int
    credit_bytes: int
    complete: bool
    def __init__(self, resume_from_seq: _Optional[int] = ..., credit_frames: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class IngestAck(_message.Message):
    __slots__ = ("next_seq", "credit_frames", "credit_bytes", "totals", "shed_frames")
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FRAMES_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    SHED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    next_seq: int
    credit_frames: int
    credit_bytes: int
    totals: _stream_pb2.StreamTotals
    shed_frames: int
    def __init__(self, next_seq: _Optional[int] = ..., credit_frames: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., totals: _Optional[_Union[_stream_pb2.StreamTotals, _Mapping]] = ..., shed_frames: _Optional[int] = ...) -> None: ...

class IngestFinished(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _stream_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_stream_pb2.Stream, _Mapping]] = ...) -> None: ...
