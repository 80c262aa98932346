"""The memory store: blocks of KV, their summaries and stream states in LMDB, searched through FAISS."""

from memory_store.apart import verify_apart
from memory_store.durability import Durability
from memory_store.errors import (
    BlockConflict,
    BlockNotFound,
    CorruptRecord,
    EpochFenced,
    FingerprintMismatch,
    InvalidRecord,
    KvDropped,
    QuotaExceeded,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    StreamExists,
    StreamNotFound,
    UnsupportedFormat,
)
from memory_store.fetch import BlockReader
from memory_store.quotas import Quota
from memory_store.records import (
    KV_DTYPES,
    TOKEN_DTYPE,
    Block,
    Commit,
    Hit,
    LibraryHit,
    Retention,
    StreamRecord,
    StreamState,
    StreamStats,
    TimeRange,
)
from memory_store.store import Store, restore
from memory_store.upkeep import StoreStats
from memory_store.verify import Finding, VerifyReport

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
    "Finding",
    "FingerprintMismatch",
    "Hit",
    "InvalidRecord",
    "KvDropped",
    "LibraryHit",
    "Quota",
    "QuotaExceeded",
    "Retention",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreStats",
    "StoreUnavailable",
    "StreamExists",
    "StreamNotFound",
    "StreamRecord",
    "StreamState",
    "StreamStats",
    "TimeRange",
    "VerifyReport",
    "restore",
    "verify_apart",
    "UnsupportedFormat",
]
