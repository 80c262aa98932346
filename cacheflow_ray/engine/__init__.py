"""The product in one process: streams in, answers out."""

from cacheflow_ray.engine.answerer import Answer
from cacheflow_ray.engine.ingesting import IngestJob
from cacheflow_ray.engine.memory import VideoMemory
from cacheflow_ray.engine.reports import (
    AnswerResult,
    BlockView,
    Evidence,
    IngestProgress,
    IngestReport,
    StreamInfo,
    Usage,
)

__all__ = [
    "Answer",
    "AnswerResult",
    "BlockView",
    "Evidence",
    "IngestJob",
    "IngestProgress",
    "IngestReport",
    "StreamInfo",
    "Usage",
    "VideoMemory",
]
