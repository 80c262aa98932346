"""The store's values: what a stream, a block, a stream state and a hit are.

Shape letters: L layers, H kv-heads, B tokens per block, D head_dim, S summarised layers, V vectors per block.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from memory_store.errors import InvalidRecord

JsonValue: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
Array: TypeAlias = npt.NDArray[Any]

#: One kept token: which frame, when, where in the frame's token grid, and `pos`, its place on the stream's own
#: position axis (the model adapter gives it; it grows with the stream). Text tokens inside a frame have row = col = -1.
TOKEN_DTYPE = np.dtype([("frame_idx", "<i8"), ("timestamp_s", "<f8"), ("pos", "<i8"), ("row", "<i2"), ("col", "<i2")])

#: KV may be kept in these types; numpy knows bfloat16 through ml_dtypes.
KV_DTYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))

_MAX_NAME_BYTES = 400

STREAM_ID = re.compile(r"(?:[a-z0-9][a-z0-9-]{0,62}:)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """Identity and immutable settings of a stream, written once when it is created.

    Args:
        stream_id: 1..128 of letters, digits, '.', '_' and '-', the first a letter or digit. A tenant's name and a colon
            may stand before it, where tenants may give the same names.
        fingerprint: identity of model weights + dtype + prefix + adapter version; KV of two fingerprints never mix.
        settings: immutable settings (block size, window, frame rate, dropping, summary, ...), JSON values.
        labels: free text by name, given by the user.
        created_s: Unix time, seconds.
        tenant: whose it is; "" where nobody tells.

    Raises:
        InvalidRecord: the name has other characters or the fingerprint is empty.
    """

    stream_id: str
    fingerprint: str
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created_s: float = 0.0
    tenant: str = ""

    def __post_init__(self) -> None:
        if not STREAM_ID.fullmatch(self.stream_id):
            raise InvalidRecord(
                f"stream name {self.stream_id!r} is not allowed: use 1 to 128 letters, digits, '.', '_' or '-', "
                "the first a letter or digit",
                stream_id=self.stream_id,
            )
        if not 0 < len(self.fingerprint.encode()) <= _MAX_NAME_BYTES or len(self.tenant.encode()) > _MAX_NAME_BYTES:
            raise InvalidRecord(
                f"stream {self.stream_id!r} needs a fingerprint; it and the tenant may have {_MAX_NAME_BYTES} bytes",
                stream_id=self.stream_id,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One full block as it is written.

    Args:
        stream_id, block_idx: identity; block_idx counts from 0 without gaps.
        tokens: [B] of TOKEN_DTYPE, in stream order.
        kv: [L, 2, H, B, D] un-rotated keys (index 0) and values (index 1), C-contiguous, of a KV_DTYPES type.
        summary: [S, V, H, D] float32, finite.
        thumbnail: a small JPEG, or None.

    Raises:
        InvalidRecord: a shape, dtype or value breaks the above.
    """

    stream_id: str
    block_idx: int
    tokens: Array
    kv: Array
    summary: Array
    thumbnail: bytes | None = None

    def __post_init__(self) -> None:
        what = f"block {self.block_idx} of stream {self.stream_id!r}"
        ids: dict[str, object] = {"stream_id": self.stream_id, "block_idx": self.block_idx}
        if self.block_idx < 0 or self.block_idx >= 2**32:
            raise InvalidRecord(f"{what}: the number must be in 0..2**32-1", **ids)
        if self.tokens.dtype != TOKEN_DTYPE or self.tokens.ndim != 1 or not len(self.tokens):
            raise InvalidRecord(f"{what}: tokens must be a non-empty vector of TOKEN_DTYPE", **ids)
        if self.kv.dtype not in KV_DTYPES:
            raise InvalidRecord(f"{what}: KV of dtype {self.kv.dtype} cannot be stored", **ids)
        if self.kv.ndim != 5 or self.kv.shape[1] != 2 or self.kv.shape[3] != len(self.tokens):
            raise InvalidRecord(f"{what}: KV of shape {self.kv.shape} is not [L, 2, H, {len(self.tokens)}, D]", **ids)
        heads_and_dim = (self.kv.shape[2], self.kv.shape[4])
        if self.summary.ndim != 4 or self.summary.shape[2:] != heads_and_dim or self.summary.dtype != np.float32:
            raise InvalidRecord(f"{what}: summary {self.summary.shape} is not float32 [S, V, H, D]", **ids)
        if not np.isfinite(self.summary).all():
            raise InvalidRecord(f"{what}: the summary holds NaN or infinity", **ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """All an encoder needs to go on with a stream, committed with its blocks.

    Args:
        epoch: number of the stream's owner; a write with a lower one than the stored is refused.
        num_blocks: blocks of the stream that exist once this state is committed.
        payload: the encoder's own bytes; the store keeps and checks them, and never looks inside.
    """

    epoch: int
    num_blocks: int
    payload: bytes

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.num_blocks < 0:
            raise InvalidRecord(f"a stream state cannot have epoch {self.epoch} or {self.num_blocks} blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What one stream adds in one transaction: new blocks and the state after them."""

    stream_id: str
    state: StreamState
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """Totals of a stream. Times in seconds; None while there is no block.

    Args:
        num_blocks: committed since the stream was made: block numbers are below it.
        num_tokens, num_bytes: of what is kept of them.
        start_s, end_s: first and last time kept.
        num_deleted: blocks of which nothing is kept any more.
        num_absent: blocks kept without their KV.
    """

    num_blocks: int
    num_tokens: int
    num_bytes: int
    start_s: float | None = None
    end_s: float | None = None
    num_deleted: int = 0
    num_absent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """Closed interval of stream time in seconds; the ends may be infinite.

    Raises:
        InvalidRecord: an end is NaN, or the range ends before it starts.
    """

    start_s: float = -math.inf
    end_s: float = math.inf

    def __post_init__(self) -> None:
        if not self.start_s <= self.end_s:
            raise InvalidRecord(f"time range {self.start_s}..{self.end_s} s ends before it starts: swap its ends")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of a stream is kept, and for how long. What is over a limit goes, oldest first.

    Neither the last blocks, as many as the stream's window (`settings["window_blocks"]`, at least one), nor blocks that
    overlap a pinned range are ever deleted or lose their KV.

    Args:
        ttl_s: blocks are deleted so long after they were stored.
        max_blocks, max_bytes: blocks and bytes kept.
        summary_only_after_s: so long after it was stored, a block loses its KV and keeps summary, thumbnail and tokens.
        pinned: ranges of stream time.

    Raises:
        InvalidRecord: a limit is negative or NaN.
    """

    ttl_s: float | None = None
    max_blocks: int | None = None
    max_bytes: int | None = None
    summary_only_after_s: float | None = None
    pinned: tuple[TimeRange, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ttl_s", "max_blocks", "max_bytes", "summary_only_after_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InvalidRecord(f"a retention of {name} = {value} is not possible: give a number from 0 on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A block a search found. `score`: as whoever ranked it says; higher is nearer."""

    block_idx: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryHit:
    """A block of some stream that a search over all streams found. `score`: as of a `Hit`."""

    stream_id: str
    block_idx: int
    score: float
