import datetime

from cacheflow_ray.service.v1 import stream_pb2 as _stream_pb2
from google.longrunning import operations_pb2 as _operations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IndexFileState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INDEX_FILE_STATE_UNSPECIFIED: _ClassVar[IndexFileState]
    INDEX_FILE_STATE_PENDING: _ClassVar[IndexFileState]
    INDEX_FILE_STATE_RUNNING: _ClassVar[IndexFileState]
    INDEX_FILE_STATE_DONE: _ClassVar[IndexFileState]
    INDEX_FILE_STATE_FAILED: _ClassVar[IndexFileState]
    INDEX_FILE_STATE_SKIPPED: _ClassVar[IndexFileState]
INDEX_FILE_STATE_UNSPECIFIED: IndexFileState
INDEX_FILE_STATE_PENDING: IndexFileState
INDEX_FILE_STATE_RUNNING: IndexFileState
INDEX_FILE_STATE_DONE: IndexFileState
INDEX_FILE_STATE_FAILED: IndexFileState
INDEX_FILE_STATE_SKIPPED: IndexFileState

class CreateIndexJobRequest(_message.Message):
    __slots__ = ("sources", "job_id", "settings", "labels", "retention", "retry_failed", "crew")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    RETRY_FAILED_FIELD_NUMBER: _ClassVar[int]
    CREW_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedScalarFieldContainer[str]
    job_id: str
    settings: _stream_pb2.StreamSettings
    labels: _containers.ScalarMap[str, str]
    retention: _stream_pb2.Retention
    retry_failed: bool
    crew: IndexCrew
    def __init__(self, sources: _Optional[_Iterable[str]] = ..., job_id: _Optional[str] = ..., settings: _Optional[_Union[_stream_pb2.StreamSettings, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., retention: _Optional[_Union[_stream_pb2.Retention, _Mapping]] = ..., retry_failed: _Optional[bool] = ..., crew: _Optional[_Union[IndexCrew, _Mapping]] = ...) -> None: ...

class IndexCrew(_message.Message):
    __slots__ = ("indexers", "files_at_once")
    INDEXERS_FIELD_NUMBER: _ClassVar[int]
    FILES_AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    indexers: int
    files_at_once: int
    def __init__(self, indexers: _Optional[int] = ..., files_at_once: _Optional[int] = ...) -> None: ...

class IndexJobMetadata(_message.Message):
    __slots__ = ("sources", "state", "totals", "create_time", "end_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[IndexJobMetadata.State]
        STATE_RUNNING: _ClassVar[IndexJobMetadata.State]
        STATE_DONE: _ClassVar[IndexJobMetadata.State]
        STATE_CANCELLED: _ClassVar[IndexJobMetadata.State]
        STATE_FAILED: _ClassVar[IndexJobMetadata.State]
    STATE_UNSPECIFIED: IndexJobMetadata.State
    STATE_RUNNING: IndexJobMetadata.State
    STATE_DONE: IndexJobMetadata.State
    STATE_CANCELLED: IndexJobMetadata.State
    STATE_FAILED: IndexJobMetadata.State
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedScalarFieldContainer[str]
    state: IndexJobMetadata.State
    totals: IndexTotals
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, sources: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[IndexJobMetadata.State, str]] = ..., totals: _Optional[_Union[IndexTotals, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class IndexJobReport(_message.Message):
    __slots__ = ("totals", "troubles")
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    TROUBLES_FIELD_NUMBER: _ClassVar[int]
    totals: IndexTotals
    troubles: _containers.RepeatedCompositeFieldContainer[IndexTrouble]
    def __init__(self, totals: _Optional[_Union[IndexTotals, _Mapping]] = ..., troubles: _Optional[_Iterable[_Union[IndexTrouble, _Mapping]]] = ...) -> None: ...

class IndexTotals(_message.Message):
    __slots__ = ("pending_files", "running_files", "done_files", "failed_files", "skipped_files", "already_done_files", "frames", "tokens_seen", "tokens_kept", "video_s", "busy_s", "decode_s", "encode_s", "left")
    PENDING_FILES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FILES_FIELD_NUMBER: _ClassVar[int]
    DONE_FILES_FIELD_NUMBER: _ClassVar[int]
    FAILED_FILES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FILES_FIELD_NUMBER: _ClassVar[int]
    ALREADY_DONE_FILES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_SEEN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_KEPT_FIELD_NUMBER: _ClassVar[int]
    VIDEO_S_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    ENCODE_S_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    pending_files: int
    running_files: int
    done_files: int
    failed_files: int
    skipped_files: int
    already_done_files: int
    frames: int
    tokens_seen: int
    tokens_kept: int
    video_s: float
    busy_s: float
    decode_s: float
    encode_s: float
    left: float
    def __init__(self, pending_files: _Optional[int] = ..., running_files: _Optional[int] = ..., done_files: _Optional[int] = ..., failed_files: _Optional[int] = ..., skipped_files: _Optional[int] = ..., already_done_files: _Optional[int] = ..., frames: _Optional[int] = ..., tokens_seen: _Optional[int] = ..., tokens_kept: _Optional[int] = ..., video_s: _Optional[float] = ..., busy_s: _Optional[float] = ..., decode_s: _Optional[float] = ..., encode_s: _Optional[float] = ..., left: _Optional[float] = ...) -> None: ...

class IndexTrouble(_message.Message):
    __slots__ = ("uri", "state", "reason")
    URI_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    uri: str
    state: IndexFileState
    reason: str
    def __init__(self, uri: _Optional[str] = ..., state: _Optional[_Union[IndexFileState, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class IndexFile(_message.Message):
    __slots__ = ("uri", "stream", "state", "reason", "transient", "warning", "attempts", "size_bytes", "content", "frames", "tokens_seen", "tokens_kept", "blocks", "video_s", "took_s", "job")
    URI_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TRANSIENT_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_SEEN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_KEPT_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    VIDEO_S_FIELD_NUMBER: _ClassVar[int]
    TOOK_S_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    uri: str
    stream: str
    state: IndexFileState
    reason: str
    transient: bool
    warning: str
    attempts: int
    size_bytes: int
    content: str
    frames: int
    tokens_seen: int
    tokens_kept: int
    blocks: int
    video_s: float
    took_s: float
    job: str
    def __init__(self, uri: _Optional[str] = ..., stream: _Optional[str] = ..., state: _Optional[_Union[IndexFileState, str]] = ..., reason: _Optional[str] = ..., transient: _Optional[bool] = ..., warning: _Optional[str] = ..., attempts: _Optional[int] = ..., size_bytes: _Optional[int] = ..., content: _Optional[str] = ..., frames: _Optional[int] = ..., tokens_seen: _Optional[int] = ..., tokens_kept: _Optional[int] = ..., blocks: _Optional[int] = ..., video_s: _Optional[float] = ..., took_s: _Optional[float] = ..., job: _Optional[str] = ...) -> None: ...

class ListIndexFilesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "job", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    job: str
    state: IndexFileState
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., job: _Optional[str] = ..., state: _Optional[_Union[IndexFileState, str]] = ...) -> None: ...

class ListIndexFilesResponse(_message.Message):
    __slots__ = ("files", "next_page_token")
    FILES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[IndexFile]
    next_page_token: str
    def __init__(self, files: _Optional[_Iterable[_Union[IndexFile, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
