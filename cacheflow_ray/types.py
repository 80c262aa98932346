"""Names shared by every package of `cacheflow_ray`: they depend on nothing but numpy and the store's records."""

from __future__ import annotations

from memory_store.records import TOKEN_DTYPE, Hit, StreamRecord, StreamStats, TimeRange

__all__ = ["TOKEN_DTYPE", "Hit", "StreamRecord", "StreamStats", "TimeRange"]
