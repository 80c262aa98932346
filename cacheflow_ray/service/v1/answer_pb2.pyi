from cacheflow_ray.service.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AskRequest(_message.Message):
    __slots__ = ("streams", "question", "session_id", "time_range", "options", "after_seq", "thumbnails", "library")
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_RANGE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    THUMBNAILS_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedScalarFieldContainer[str]
    question: str
    session_id: str
    time_range: _common_pb2.TimeRange
    options: AskOptions
    after_seq: int
    thumbnails: bool
    library: _common_pb2.LibraryScope
    def __init__(self, streams: _Optional[_Iterable[str]] = ..., question: _Optional[str] = ..., session_id: _Optional[str] = ..., time_range: _Optional[_Union[_common_pb2.TimeRange, _Mapping]] = ..., options: _Optional[_Union[AskOptions, _Mapping]] = ..., after_seq: _Optional[int] = ..., thumbnails: _Optional[bool] = ..., library: _Optional[_Union[_common_pb2.LibraryScope, _Mapping]] = ...) -> None: ...

class AskOptions(_message.Message):
    __slots__ = ("top_k", "window_blocks", "max_new_tokens", "stop_ratio")
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_RATIO_FIELD_NUMBER: _ClassVar[int]
    top_k: int
    window_blocks: int
    max_new_tokens: int
    stop_ratio: float
    def __init__(self, top_k: _Optional[int] = ..., window_blocks: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., stop_ratio: _Optional[float] = ...) -> None: ...

class AskResponse(_message.Message):
    __slots__ = ("text", "answer")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    text: str
    answer: Answer
    def __init__(self, text: _Optional[str] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("text", "session_id", "evidence", "usage", "timings_ms", "warnings", "stream")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    text: str
    session_id: str
    evidence: _containers.RepeatedCompositeFieldContainer[_common_pb2.Evidence]
    usage: Usage
    timings_ms: _containers.ScalarMap[str, float]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    stream: str
    def __init__(self, text: _Optional[str] = ..., session_id: _Optional[str] = ..., evidence: _Optional[_Iterable[_Union[_common_pb2.Evidence, _Mapping]]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., warnings: _Optional[_Iterable[str]] = ..., stream: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("context_tokens", "retrieved_blocks", "window_blocks", "tail_tokens", "question_tokens", "generated_tokens", "fetched_bytes")
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    TAIL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUESTION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FETCHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    context_tokens: int
    retrieved_blocks: int
    window_blocks: int
    tail_tokens: int
    question_tokens: int
    generated_tokens: int
    fetched_bytes: int
    def __init__(self, context_tokens: _Optional[int] = ..., retrieved_blocks: _Optional[int] = ..., window_blocks: _Optional[int] = ..., tail_tokens: _Optional[int] = ..., question_tokens: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., fetched_bytes: _Optional[int] = ...) -> None: ...
