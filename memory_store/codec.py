"""Bytes of a stored block: header, token metadata and KV in layer-major order, every byte under a checksum.

All integers little-endian, all offsets from the start of the value:

    0 ........ 48  fixed fields: magic, header checksum, version, dtype tag, codec tag, header bytes, block_idx,
                   L, H, B, D, lengths of the names
    48 ....... a   stream id, fingerprint (UTF-8), zeros up to a multiple of 8
    a ........ b   layer table: L x (offset u64, xxh3_64 u64)
    b ........ c   tokens: B x TOKEN_DTYPE, zeros up to a multiple of 64
    c ........     layer 0, layer 1, ..., layer L-1

    a layer, native     K [H, B, D] then V [H, B, D] of the dtype
    a layer, fp8, int8  scales [2, H, D] float32, then codes K [H, B, D] and V [H, B, D], a byte each, zeros up to a
                        multiple of 64

The header checksum covers [16, c) (the magic is compared and the checksum is itself); each layer has its own, so that
one layer can be read and verified without touching the others. bfloat16 is kept raw, as its dtype tag says. The dtype
is the KV's own whatever the codec. Codec tag 0 is native: a value made before there were codecs is one, and a reader
from then refuses every other as an unknown dtype tag.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from xxhash import xxh3_64_intdigest

from memory_store.errors import CorruptRecord, InvalidRecord
from memory_store.quantize import NATIVE, QUANTIZERS, channel_scales
from memory_store.records import TOKEN_DTYPE, Array, Block

Buffer: TypeAlias = bytes | memoryview

VERSION = 1
_MAGIC = b"CFRBLOCK"
_ALIGN = 64
_FIXED = struct.Struct("<8sQHBBIIIIIIHH")
_HASHED_FROM = 16
_SCALE = np.dtype("<f4")
_LAYER_TABLE = np.dtype([("offset", "<u8"), ("checksum", "<u8")])
_DTYPE_TAGS = {1: np.dtype(np.float32), 2: np.dtype(np.float16), 3: np.dtype(ml_dtypes.bfloat16)}
_TAG_OF_DTYPE = {dtype: tag for tag, dtype in _DTYPE_TAGS.items()}
_TAG_OF_CODEC = {NATIVE: 0} | {name: quantizer.tag for name, quantizer in QUANTIZERS.items()}
_CODEC_TAGS = {tag: name for name, tag in _TAG_OF_CODEC.items()}


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

    def stored_layer_bytes(self, codec: str) -> int:
        """Bytes of one layer in a block's value."""
        if codec == NATIVE:
            return self.layer_bytes
        return _round_up(2 * self.num_heads * self.head_dim * (self.block_size + _SCALE.itemsize), _ALIGN)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """What a block's value says of itself. `checksums[l]`: xxh3_64 of layer l as stored; tokens [B], owned."""

    stream_id: str
    block_idx: int
    fingerprint: str
    layout: KvLayout
    codec: str
    tokens: Array
    checksums: tuple[int, ...]
    header_bytes: int


def encode_block(block: Block, fingerprint: str, codec: str = NATIVE) -> memoryview:
    """The block's value: header and layers, the KV as `codec`, one of `quantize.CODECS`, writes it.

    Raises:
        InvalidRecord: a codec that loses precision met NaN or infinity.
    """
    layout = KvLayout.of(block.kv)
    names = block.stream_id.encode(), fingerprint.encode()
    table_at, tokens_at, data_at = _sections(len(names[0]) + len(names[1]), layout)
    stored_bytes = layout.stored_layer_bytes(codec)
    value = np.empty(data_at + layout.num_layers * stored_bytes, np.uint8)
    value[:data_at] = 0
    layers = value[data_at:].reshape(layout.num_layers, stored_bytes)
    _write_layers(block, codec, layers)
    table = value[table_at : table_at + layout.num_layers * _LAYER_TABLE.itemsize].view(_LAYER_TABLE)
    table["offset"] = data_at + np.arange(layout.num_layers, dtype=np.uint64) * np.uint64(stored_bytes)
    table["checksum"] = [xxh3_64_intdigest(layer.data) for layer in layers]
    tokens = value[tokens_at : tokens_at + block.tokens.nbytes]
    tokens[:] = np.frombuffer(block.tokens.tobytes(), np.uint8)
    value[_FIXED.size : _FIXED.size + len(names[0]) + len(names[1])] = np.frombuffer(names[0] + names[1], np.uint8)
    tags = VERSION, _TAG_OF_DTYPE[layout.dtype], _TAG_OF_CODEC[codec]
    sizes = data_at, block.block_idx, layout.num_layers, layout.num_heads, layout.block_size, layout.head_dim
    fixed = (*tags, *sizes, len(names[0]), len(names[1]))
    _FIXED.pack_into(value.data, 0, _MAGIC, 0, *fixed)
    _FIXED.pack_into(value.data, 0, _MAGIC, xxh3_64_intdigest(value[_HASHED_FROM:data_at].data), *fixed)
    return value.data


def _write_layers(block: Block, codec: str, layers: Array) -> None:
    """Fill `layers`, uint8 [L, bytes of a stored layer]."""
    layout = KvLayout.of(block.kv)
    if codec == NATIVE:
        np.copyto(layers.view(_raw(layout.dtype)).reshape(layout.shape), block.kv.view(_raw(layout.dtype)))
        return
    scales, codes = quantized(layers, layout)
    layers[:, scales[0].nbytes + codes[0].nbytes :] = 0
    for layer, kv in enumerate(block.kv):
        values = kv.astype(np.float32)
        scales[layer] = channel_scales(values, QUANTIZERS[codec])
        if not np.isfinite(scales[layer]).all():
            raise InvalidRecord(
                f"block {block.block_idx} of stream {block.stream_id!r} cannot be stored: its KV holds NaN or infinity "
                f"in layer {layer}, which codec {codec!r} cannot keep",
                stream_id=block.stream_id,
                block_idx=block.block_idx,
            )
        codes[layer] = QUANTIZERS[codec].to_codes(values / scales[layer])


def quantized(layers: Array, layout: KvLayout) -> tuple[Array, Array]:
    """Views of stored layers, uint8 [L, bytes]: scales float32 [L, 2, H, 1, D] and codes uint8 [L, 2, H, B, D]."""
    heads, size, head_dim = layout.num_heads, layout.block_size, layout.head_dim
    codes_at = 2 * heads * head_dim * _SCALE.itemsize
    scales = layers[:, :codes_at].view(_SCALE).reshape(len(layers), 2, heads, 1, head_dim)
    codes = layers[:, codes_at : codes_at + 2 * heads * size * head_dim]
    return scales, codes.reshape(len(layers), 2, heads, size, head_dim)


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
        f"stored block {block_idx} of stream {stream_id!r} is corrupt: {what}; cacheflow store verify --repair keeps "
        "the rest",
        stream_id=stream_id,
        block_idx=block_idx,
    )


class _DiffersError(Exception):
    """What differs from a well-formed value."""


def _decode_header(value: memoryview) -> BlockHeader:
    if len(value) < _FIXED.size:
        raise _DiffersError(f"{len(value)} bytes are too few for a header")
    magic, checksum, *tags, data_at, block_idx, L, H, B, D, id_bytes, print_bytes = _FIXED.unpack_from(value)
    if magic != _MAGIC:
        raise _DiffersError(f"magic is {magic!r}")
    if not _FIXED.size <= data_at <= len(value):
        raise _DiffersError(f"{data_at} header bytes do not fit a value of {len(value)}")
    if xxh3_64_intdigest(value[_HASHED_FROM:data_at]) != checksum:
        raise _DiffersError("header checksum differs")
    dtype, codec = _known(tags)
    if 0 in (L, H, B, D):
        raise _DiffersError(f"its shape is {(L, H, B, D)}")
    layout = KvLayout(num_layers=L, num_heads=H, block_size=B, head_dim=D, dtype=dtype)
    stored_bytes = layout.stored_layer_bytes(codec)
    table_at, tokens_at, expected_data_at = _sections(id_bytes + print_bytes, layout)
    if (data_at, len(value)) != (expected_data_at, data_at + L * stored_bytes):
        raise _DiffersError(f"{len(value)} bytes do not hold {codec} KV of shape {layout.shape}")
    table = np.frombuffer(value, _LAYER_TABLE, L, table_at)
    if table["offset"].tolist() != list(range(data_at, len(value), stored_bytes)):
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
        codec=codec,
        tokens=np.frombuffer(bytearray(value[tokens_at:data_at]), TOKEN_DTYPE, layout.block_size),
        checksums=tuple(table["checksum"].tolist()),
        header_bytes=data_at,
    )


def _known(tags: list[int]) -> tuple[np.dtype[Any], str]:
    """The dtype and codec that version, dtype tag and codec tag name."""
    version, dtype_tag, codec_tag = tags
    if version != VERSION or dtype_tag not in _DTYPE_TAGS or codec_tag not in _CODEC_TAGS:
        raise _DiffersError(f"unknown version {version}, dtype tag {dtype_tag} or codec tag {codec_tag}")
    return _DTYPE_TAGS[dtype_tag], _CODEC_TAGS[codec_tag]


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
    """The layers of a block's value as they lie there, zero-copy: uint8 [L, bytes of a stored layer]."""
    data = np.frombuffer(value, np.uint8, offset=header.header_bytes)
    return data.reshape(header.layout.num_layers, header.layout.stored_layer_bytes(header.codec))


def verify_layers(header: BlockHeader, layers: Array, first: int) -> None:
    """Check stored `layers`, uint8 [l, bytes], against what the header says of layers `first`, `first + 1`, ...

    Raises:
        CorruptRecord: naming the layer.
    """
    # Hashed in one `map`, because threads that read together wait for each other whenever Python code runs in between.
    expected, found = header.checksums[first : first + len(layers)], tuple(map(xxh3_64_intdigest, layers))
    if found != expected:
        layer = first + [mine == theirs for mine, theirs in zip(found, expected, strict=True)].index(False)
        raise corrupt(header.stream_id, header.block_idx, f"checksum of layer {layer} differs")
