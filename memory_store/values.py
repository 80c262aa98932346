"""Bytes of the small stored values: summaries, states, JSON, each with a checksum bound to its key.

Integers are little-endian.

    sealed value    kind (4 bytes), version u16, zero u16, xxh3_64 of key and payload u64, payload
    summary value   sealed (start_s, end_s, num_tokens, S, V, H, D, thumbnail, num_bytes, checksum of the vectors), then
                    the vectors, float32
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from xxhash import xxh3_64_intdigest

from memory_store.codec import Buffer
from memory_store.errors import CorruptRecord, InvalidRecord
from memory_store.records import Array, StreamState

T = TypeVar("T")

_VERSION = 1
_SEALED = struct.Struct("<4sHHQ")
_SUMMARY = struct.Struct("<ddIIIIIIQQ")
_STATE = struct.Struct("<QQ")

#: What it raises to read content that passes its checksum and is nothing that any version writes.
MALFORMED = (
    InvalidRecord, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, struct.error,
)  # fmt: skip

#: What the stored number says of a block's thumbnail.
_THUMBNAIL = (None, False, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryHeader:
    """A block's totals, kept beside its vectors. Times in seconds.

    Args:
        num_bytes: everything stored of the block.
        thumbnail: whether it has one; None where nobody tells.
    """

    start_s: float
    end_s: float
    num_tokens: int
    num_bytes: int
    thumbnail: bool | None = None


def seal(kind: bytes, key: bytes, payload: bytes) -> bytes:
    """`payload` behind a checksum that also covers the key it will be stored under. `kind`: 4 bytes."""
    return _SEALED.pack(kind, _VERSION, 0, _digest(key, payload)) + payload


def unseal(kind: bytes, key: bytes, value: Buffer) -> memoryview:
    """The payload that `seal` wrapped, zero-copy.

    Raises:
        CorruptRecord: another kind, another key, or a changed byte.
    """
    view = memoryview(value)
    if len(view) < _SEALED.size:
        raise _corrupt_value(kind, key)
    found, version, padding, checksum = _SEALED.unpack_from(view)
    payload = view[_SEALED.size :]
    if (found, version, padding) != (kind, _VERSION, 0) or checksum != _digest(key, payload):
        raise _corrupt_value(kind, key)
    return payload


def decode(kind: bytes, key: bytes, value: Buffer, read: Callable[[memoryview], T]) -> T:
    """What `read` makes of the payload that `seal` wrapped.

    Raises:
        CorruptRecord: as `unseal`; or `read` cannot make anything of it.
    """
    payload = unseal(kind, key, value)
    try:
        return read(payload)
    except MALFORMED as error:
        raise _corrupt_value(kind, key, "no version writes such content") from error


def _digest(key: bytes, payload: Buffer) -> int:
    return xxh3_64_intdigest(payload, seed=xxh3_64_intdigest(key))


def _corrupt_value(kind: bytes, key: bytes, what: str = "its checksum or kind differs") -> CorruptRecord:
    return CorruptRecord(
        f"stored {kind.decode()} value under key {key.hex()} is corrupt: {what}; cacheflow store verify --repair keeps "
        "the rest",
        key=key.hex(),
    )


def encode_summary(key: bytes, header: SummaryHeader, vectors: Array) -> bytes:
    """Value of a block's summary: its totals, sealed, then `vectors` [S, V, H, D] float32, verified apart."""
    data = np.ascontiguousarray(vectors, "<f4").tobytes()
    told = _THUMBNAIL.index(header.thumbnail)
    fixed = (header.start_s, header.end_s, header.num_tokens, *vectors.shape, told, header.num_bytes)
    return seal(b"SUMM", key, _SUMMARY.pack(*fixed, _digest(key, data))) + data


def decode_summary_header(key: bytes, value: Buffer) -> SummaryHeader:
    """The totals of a block; its vectors are not touched.

    Raises:
        CorruptRecord
    """
    return _summary(key, value)[0]


def decode_summary_vectors(key: bytes, value: Buffer) -> Array:
    """The vectors [S, V, H, D] float32 of a block, verified, as a view of `value`.

    Raises:
        CorruptRecord
    """
    _, shape, checksum = _summary(key, value)
    data = memoryview(value)[_SEALED.size + _SUMMARY.size :]
    if 0 in shape or len(data) != 4 * math.prod(shape) or _digest(key, data) != checksum:
        raise _corrupt_value(b"SUMM", key)
    return np.frombuffer(data, "<f4").reshape(shape)


def _summary(key: bytes, value: Buffer) -> tuple[SummaryHeader, tuple[int, ...], int]:
    head = unseal(b"SUMM", key, memoryview(value)[: _SEALED.size + _SUMMARY.size])
    if len(head) != _SUMMARY.size:
        raise _corrupt_value(b"SUMM", key)
    start_s, end_s, num_tokens, *shape, told, num_bytes, checksum = _SUMMARY.unpack(head)
    if told >= len(_THUMBNAIL):
        raise _corrupt_value(b"SUMM", key)
    header = SummaryHeader(
        start_s=start_s, end_s=end_s, num_tokens=num_tokens, num_bytes=num_bytes, thumbnail=_THUMBNAIL[told]
    )
    return header, tuple(shape), checksum


def encode_state(key: bytes, state: StreamState) -> bytes:
    return seal(b"STAT", key, _STATE.pack(state.epoch, state.num_blocks) + state.payload)


def decode_state(key: bytes, value: Buffer) -> StreamState:
    """Raises: CorruptRecord."""
    payload = unseal(b"STAT", key, value)
    if len(payload) < _STATE.size:
        raise _corrupt_value(b"STAT", key)
    epoch, num_blocks = _STATE.unpack_from(payload)
    return StreamState(epoch=epoch, num_blocks=num_blocks, payload=bytes(payload[_STATE.size :]))


def encode_json(kind: bytes, key: bytes, value: object) -> bytes:
    return seal(kind, key, json.dumps(value, separators=(",", ":")).encode())


def decode_json(kind: bytes, key: bytes, value: Buffer, make: Callable[[Any], T]) -> T:
    """What `make` makes of the JSON value. Raises: CorruptRecord, also where it cannot."""
    return decode(kind, key, value, lambda payload: make(json.loads(bytes(payload))))
