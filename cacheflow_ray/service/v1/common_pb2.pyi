import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TimeRange(_message.Message):
    __slots__ = ("start_s", "end_s")
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    start_s: float
    end_s: float
    def __init__(self, start_s: _Optional[float] = ..., end_s: _Optional[float] = ...) -> None: ...

class LibraryScope(_message.Message):
    __slots__ = ("stream_glob", "labels", "recorded_from", "recorded_to")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STREAM_GLOB_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FROM_FIELD_NUMBER: _ClassVar[int]
    RECORDED_TO_FIELD_NUMBER: _ClassVar[int]
    stream_glob: str
    labels: _containers.ScalarMap[str, str]
    recorded_from: _timestamp_pb2.Timestamp
    recorded_to: _timestamp_pb2.Timestamp
    def __init__(self, stream_glob: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., recorded_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., recorded_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("stream", "start_s", "end_s", "block_idxs", "score", "kind", "thumbnail")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Evidence.Kind]
        KIND_RETRIEVED: _ClassVar[Evidence.Kind]
        KIND_WINDOW: _ClassVar[Evidence.Kind]
    KIND_UNSPECIFIED: Evidence.Kind
    KIND_RETRIEVED: Evidence.Kind
    KIND_WINDOW: Evidence.Kind
    STREAM_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    BLOCK_IDXS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    stream: str
    start_s: float
    end_s: float
    block_idxs: _containers.RepeatedScalarFieldContainer[int]
    score: float
    kind: Evidence.Kind
    thumbnail: bytes
    def __init__(self, stream: _Optional[str] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., block_idxs: _Optional[_Iterable[int]] = ..., score: _Optional[float] = ..., kind: _Optional[_Union[Evidence.Kind, str]] = ..., thumbnail: _Optional[bytes] = ...) -> None: ...
