"""The product in one process: streams in, answers out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacheflow_ray.engine.answerer import Answer
    from cacheflow_ray.engine.ingesting import IngestJob
    from cacheflow_ray.engine.memory import VideoMemory
    from cacheflow_ray.engine.reports import (
        AnswerResult,
        BlockView,
        Evidence,
        IngestProgress,
        IngestReport,
        LibraryFound,
        StreamInfo,
        StreamMoment,
        Usage,
    )
    from cacheflow_ray.engine.scope import LibraryScope

__all__ = [
    "Answer",
    "AnswerResult",
    "BlockView",
    "Evidence",
    "IngestJob",
    "IngestProgress",
    "IngestReport",
    "LibraryFound",
    "LibraryScope",
    "StreamInfo",
    "StreamMoment",
    "Usage",
    "VideoMemory",
]

_MODULES = {"Answer": "answerer", "IngestJob": "ingesting", "LibraryScope": "scope", "VideoMemory": "memory"}


def __getattr__(name: str) -> Any:
    """Imported when first asked for: clients, and actors without a model, do not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'reports')}"), name)
