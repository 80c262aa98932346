"""Bytes of a stored block: header, token metadata and KV in layer-major order, every byte under a checksum.

All integers little-endian, all offsets from the start of the value:

    0 ........ 48  fixed fields: magic, header checksum, version, dtype tag, header bytes, block_idx, L, H, B, D,
                   lengths of the names
    48 ....... a   stream id, fingerprint (UTF-8), zeros up to a multiple of 8
    a ........ b   layer table: L x (offset u64, xxh3_64 u64)
    b ........ c   tokens: B x TOKEN_DTYPE, zeros up to a multiple of 64
    c ........     layer 0: K [H, B, D] then V [H, B, D]; layer 1; ...; layer L-1

The header checksum covers [16, c) (the magic is compared and the checksum is itself); each layer has its own, so that
one layer can be read and verified without touching the others. bfloat16 is kept raw, as its dtype tag says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from xxhash import xxh3_64_intdigest

from memory_store.errors import CorruptRecord
from memory_store.records import TOKEN_DTYPE, Array, Block

Buffer: TypeAlias = bytes | memoryview

VERSION = 1
_MAGIC = b"CFRBLOCK"
_ALIGN = 64
_FIXED = struct.Struct("<8sQHHIIIIIIHH")
_HASHED_FROM = 16
_LAYER_TABLE = np.dtype([("offset", "<u8"), ("checksum", "<u8")])
_DTYPE_TAGS = {1: np.dtype(np.float32), 2: np.dtype(np.float16), 3: np.dtype(ml_dtypes.bfloat16)}
_TAG_OF_DTYPE = {dtype: tag for tag, dtype in _DTYPE_TAGS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """Shape and type of a block's KV: [num_layers, 2, num_heads, block_size, head_dim]."""

    num_layers: int
    num_heads: int
    block_size: int
    head_dim: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, kv: Array) -> KvLayout:
        return cls(
            num_layers=kv.shape[0],
            num_heads=kv.shape[2],
            block_size=kv.shape[3],
            head_dim=kv.shape[4],
            dtype=kv.dtype,
        )

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return (self.num_layers, 2, self.num_heads, self.block_size, self.head_dim)

    @property
    def layer_bytes(self) -> int:
        return 2 * self.num_heads * self.block_size * self.head_dim * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """What a block's value says of itself. `checksums[l]`: xxh3_64 of layer l; tokens [B], owned."""

    stream_id: str
    block_idx: int
    fingerprint: str
    layout: KvLayout
    tokens: Array
    checksums: tuple[int, ...]
    header_bytes: int


def encode_block(block: Block, fingerprint: str) -> memoryview:
    """The block's value: header and L * layer bytes."""
    layout = KvLayout.of(block.kv)
    names = block.stream_id.encode(), fingerprint.encode()
    table_at, tokens_at, data_at = _sections(len(names[0]) + len(names[1]), layout)
    value = np.empty(data_at + layout.num_layers * layout.layer_bytes, np.uint8)
    value[:data_at] = 0
    layers = value[data_at:].reshape(layout.num_layers, layout.layer_bytes)
    np.copyto(layers.view(_raw(layout.dtype)).reshape(layout.shape), block.kv.view(_raw(layout.dtype)))
    table = value[table_at : table_at + layout.num_layers * _LAYER_TABLE.itemsize].view(_LAYER_TABLE)
    table["offset"] = data_at + np.arange(layout.num_layers, dtype=np.uint64) * np.uint64(layout.layer_bytes)
    table["checksum"] = [xxh3_64_intdigest(layer.data) for layer in layers]
    tokens = value[tokens_at : tokens_at + block.tokens.nbytes]
    tokens[:] = np.frombuffer(block.tokens.tobytes(), np.uint8)
    value[_FIXED.size : _FIXED.size + len(names[0]) + len(names[1])] = np.frombuffer(names[0] + names[1], np.uint8)
    fixed = (VERSION, _TAG_OF_DTYPE[layout.dtype], data_at, block.block_idx, layout.num_layers, layout.num_heads)
    rest = (layout.block_size, layout.head_dim, len(names[0]), len(names[1]))
    _FIXED.pack_into(value.data, 0, _MAGIC, 0, *fixed, *rest)
    _FIXED.pack_into(value.data, 0, _MAGIC, xxh3_64_intdigest(value[_HASHED_FROM:data_at].data), *fixed, *rest)
    return value.data


def decode_header(value: Buffer, *, stream_id: str, block_idx: int) -> BlockHeader:
    """Header of a block's value, verified to be whole and to be the block asked for; the layers are not touched.

    Raises:
        CorruptRecord: naming what differs.
    """
    try:
        header = _decode_header(memoryview(value))
        if (header.stream_id, header.block_idx) != (stream_id, block_idx):
            raise _DiffersError(f"it holds block {header.block_idx} of stream {header.stream_id!r}")
    except _DiffersError as differs:
        raise corrupt(stream_id, block_idx, str(differs)) from None
    return header


def corrupt(stream_id: str, block_idx: int, what: str) -> CorruptRecord:
    """The error for a stored block that is not what it should be."""
    return CorruptRecord(
        f"stored block {block_idx} of stream {stream_id!r} is corrupt: {what}; delete the stream and ingest it again",
        stream_id=stream_id,
        block_idx=block_idx,
    )


class _DiffersError(Exception):
    """What differs from a well-formed value."""


def _decode_header(value: memoryview) -> BlockHeader:
    if len(value) < _FIXED.size:
        raise _DiffersError(f"{len(value)} bytes are too few for a header")
    magic, checksum, version, tag, data_at, block_idx, *sizes, id_bytes, print_bytes = _FIXED.unpack_from(value)
    if magic != _MAGIC:
        raise _DiffersError(f"magic is {magic!r}")
    if not _FIXED.size <= data_at <= len(value):
        raise _DiffersError(f"{data_at} header bytes do not fit a value of {len(value)}")
    if xxh3_64_intdigest(value[_HASHED_FROM:data_at]) != checksum:
        raise _DiffersError("header checksum differs")
    if version != VERSION or tag not in _DTYPE_TAGS or 0 in sizes:
        raise _DiffersError(f"unknown version {version}, dtype tag {tag} or shape {sizes}")
    layout = KvLayout(
        num_layers=sizes[0], num_heads=sizes[1], block_size=sizes[2], head_dim=sizes[3], dtype=_DTYPE_TAGS[tag]
    )
    table_at, tokens_at, expected_data_at = _sections(id_bytes + print_bytes, layout)
    if (data_at, len(value)) != (expected_data_at, data_at + layout.num_layers * layout.layer_bytes):
        raise _DiffersError(f"{len(value)} bytes do not hold KV of shape {layout.shape}")
    table = np.frombuffer(value, _LAYER_TABLE, layout.num_layers, table_at)
    if table["offset"].tolist() != list(range(data_at, len(value), layout.layer_bytes)):
        raise _DiffersError("the layer table points elsewhere")
    names = bytes(value[_FIXED.size : _FIXED.size + id_bytes + print_bytes])
    try:
        stream_id, fingerprint = names[:id_bytes].decode(), names[id_bytes:].decode()
    except UnicodeDecodeError:
        raise _DiffersError("its names are not UTF-8") from None
    return BlockHeader(
        stream_id=stream_id,
        block_idx=block_idx,
        fingerprint=fingerprint,
        layout=layout,
        tokens=np.frombuffer(bytearray(value[tokens_at:data_at]), TOKEN_DTYPE, layout.block_size),
        checksums=tuple(table["checksum"].tolist()),
        header_bytes=data_at,
    )


def _sections(names_bytes: int, layout: KvLayout) -> tuple[int, int, int]:
    """Where the layer table, the tokens and the layers begin: a, b and c of the drawing above."""
    table_at = _round_up(_FIXED.size + names_bytes, 8)
    tokens_at = table_at + layout.num_layers * _LAYER_TABLE.itemsize
    return table_at, tokens_at, _round_up(tokens_at + layout.block_size * TOKEN_DTYPE.itemsize, _ALIGN)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _raw(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Unsigned integer as wide as `dtype`: copies run at memory speed for it, which they do not for bfloat16."""
    return np.dtype(f"u{dtype.itemsize}")


def layer_bytes(header: BlockHeader, value: Buffer) -> Array:
    """The layers of a block's value as they lie there, zero-copy: uint8 [L, bytes of a layer]."""
    data = np.frombuffer(value, np.uint8, offset=header.header_bytes)
    return data.reshape(header.layout.num_layers, header.layout.layer_bytes)


def verify_layers(header: BlockHeader, layers: Array, first: int) -> None:
    """Check `layers`, uint8 [l, bytes of a layer], against what the header says of layers `first`, `first + 1`, ...

    Raises:
        CorruptRecord: naming the layer.
    """
    # Hashed in one `map`, because threads that read together wait for each other whenever Python code runs in between.
    expected, found = header.checksums[first : first + len(layers)], tuple(map(xxh3_64_intdigest, layers))
    if found != expected:
        layer = first + [mine == theirs for mine, theirs in zip(found, expected, strict=True)].index(False)
        raise corrupt(header.stream_id, header.block_idx, f"checksum of layer {layer} differs")
