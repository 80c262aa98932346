"""A library-wide index: the summary vectors of all streams of a shard, searched together."""

from memory_store.library.ids import (
    IdRange,
    best_of_blocks,
    block_range,
    split_ids,
    stream_range,
    vector_ids,
)
from memory_store.library.index import LibraryIndex
from memory_store.library.segment import CODECS, Load
from memory_store.library.state import LibrarySettings, LibrarySpec

__all__ = [
    "LibraryIndex",
    "LibrarySpec",
    "LibrarySettings",
    "Load",
    "CODECS",
    "IdRange",
    "vector_ids",
    "stream_range",
    "block_range",
    "split_ids",
    "best_of_blocks",
]
