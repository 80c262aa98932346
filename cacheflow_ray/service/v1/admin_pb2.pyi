from cacheflow_ray.service.v1 import stream_pb2 as _stream_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("actors", "streams")
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    actors: _containers.RepeatedCompositeFieldContainer[ActorStatus]
    streams: _containers.RepeatedCompositeFieldContainer[LiveStream]
    def __init__(self, actors: _Optional[_Iterable[_Union[ActorStatus, _Mapping]]] = ..., streams: _Optional[_Iterable[_Union[LiveStream, _Mapping]]] = ...) -> None: ...

class ActorStatus(_message.Message):
    __slots__ = ("name", "role", "alive", "pid", "resident_bytes", "node", "metrics")
    class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ROLE_UNSPECIFIED: _ClassVar[ActorStatus.Role]
        ROLE_ENCODER: _ClassVar[ActorStatus.Role]
        ROLE_STORE: _ClassVar[ActorStatus.Role]
        ROLE_ANSWERER: _ClassVar[ActorStatus.Role]
        ROLE_GATEWAY: _ClassVar[ActorStatus.Role]
        ROLE_DIRECTOR: _ClassVar[ActorStatus.Role]
    ROLE_UNSPECIFIED: ActorStatus.Role
    ROLE_ENCODER: ActorStatus.Role
    ROLE_STORE: ActorStatus.Role
    ROLE_ANSWERER: ActorStatus.Role
    ROLE_GATEWAY: ActorStatus.Role
    ROLE_DIRECTOR: ActorStatus.Role
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: ActorStatus.Role
    alive: bool
    pid: int
    resident_bytes: int
    node: str
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[_Union[ActorStatus.Role, str]] = ..., alive: _Optional[bool] = ..., pid: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., node: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class LiveStream(_message.Message):
    __slots__ = ("name", "encoder", "totals", "queued_frames", "shed_frames")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    SHED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    encoder: str
    totals: _stream_pb2.StreamTotals
    queued_frames: int
    shed_frames: int
    def __init__(self, name: _Optional[str] = ..., encoder: _Optional[str] = ..., totals: _Optional[_Union[_stream_pb2.StreamTotals, _Mapping]] = ..., queued_frames: _Optional[int] = ..., shed_frames: _Optional[int] = ...) -> None: ...

class ScaleRequest(_message.Message):
    __slots__ = ("encoders", "answerers")
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    ANSWERERS_FIELD_NUMBER: _ClassVar[int]
    encoders: int
    answerers: int
    def __init__(self, encoders: _Optional[int] = ..., answerers: _Optional[int] = ...) -> None: ...

class ScaleResponse(_message.Message):
    __slots__ = ("encoders", "answerers")
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    ANSWERERS_FIELD_NUMBER: _ClassVar[int]
    encoders: int
    answerers: int
    def __init__(self, encoders: _Optional[int] = ..., answerers: _Optional[int] = ...) -> None: ...
