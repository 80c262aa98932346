"""The memory store: blocks of KV, their summaries and stream states in LMDB, searched through FAISS."""

from memory_store.durability import Durability
from memory_store.errors import (
    BlockConflict,
    BlockNotFound,
    CorruptRecord,
    EpochFenced,
    FingerprintMismatch,
    InvalidRecord,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    StreamExists,
    StreamNotFound,
    UnsupportedFormat,
)
from memory_store.fetch import BlockReader
from memory_store.records import (
    KV_DTYPES,
    TOKEN_DTYPE,
    Block,
    Commit,
    Hit,
    StreamRecord,
    StreamState,
    StreamStats,
    TimeRange,
)
from memory_store.store import Store

__all__ = [
    "KV_DTYPES",
    "TOKEN_DTYPE",
    "Block",
    "BlockConflict",
    "BlockNotFound",
    "BlockReader",
    "Commit",
    "CorruptRecord",
    "Durability",
    "EpochFenced",
    "FingerprintMismatch",
    "Hit",
    "InvalidRecord",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "StreamExists",
    "StreamNotFound",
    "StreamRecord",
    "StreamState",
    "StreamStats",
    "TimeRange",
    "UnsupportedFormat",
]
