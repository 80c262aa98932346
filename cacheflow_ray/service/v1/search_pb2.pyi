from cacheflow_ray.service.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchRequest(_message.Message):
    __slots__ = ("streams", "text", "top_k", "time_range", "thumbnails", "library")
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TIME_RANGE_FIELD_NUMBER: _ClassVar[int]
    THUMBNAILS_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedScalarFieldContainer[str]
    text: str
    top_k: int
    time_range: _common_pb2.TimeRange
    thumbnails: bool
    library: _common_pb2.LibraryScope
    def __init__(self, streams: _Optional[_Iterable[str]] = ..., text: _Optional[str] = ..., top_k: _Optional[int] = ..., time_range: _Optional[_Union[_common_pb2.TimeRange, _Mapping]] = ..., thumbnails: _Optional[bool] = ..., library: _Optional[_Union[_common_pb2.LibraryScope, _Mapping]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("moments", "warnings")
    MOMENTS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    moments: _containers.RepeatedCompositeFieldContainer[_common_pb2.Evidence]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, moments: _Optional[_Iterable[_Union[_common_pb2.Evidence, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...
