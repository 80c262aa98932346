"""Fuzz targets: a block's value with its KV of every codec and dtype, and a block's summary."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
from xxhash import xxh3_64_intdigest

from memory_store import TOKEN_DTYPE, CorruptRecord, codec
from memory_store.codec import KvLayout, decode_header, encode_block
from memory_store.quantize import CODECS, NATIVE
from memory_store.records import KV_DTYPES, Array
from memory_store.stored import StoredBlock
from memory_store.values import SummaryHeader, decode_summary_header, decode_summary_vectors, encode_summary, seal
from tests.memory_store.conformance import make_block, make_tokens
from tests.memory_store.faults.fuzzing import Target

_KEY = b"\x00\x00\x00\x07\x00\x00\x00\x02"
_FIXED = struct.Struct("<8sQHBBIIIIIIHH")
_SUMMARY = struct.Struct("<ddIIIIIIQQ")
_SEALED_BYTES = 16
_NUM_TAGS, _MOST = 3, 6


def block(_: Path) -> Target:
    rng = np.random.default_rng(0)
    kinds = [(dtype, codec) for dtype in KV_DTYPES for codec in CODECS]
    shapes = [(1 + number % 3, 2, 1 + number % 2, 1 + number % 4, 1 + number % 5) for number in range(len(kinds))]
    blocks = [
        make_block(
            2,
            tokens=make_tokens(2, shape[3]),
            kv=rng.standard_normal(shape).astype(dtype),
            summary=np.zeros((1, 1, shape[2], shape[4]), np.float32),
        )
        for shape, (dtype, _) in zip(shapes, kinds, strict=True)
    ]
    seeds = [bytes(encode_block(own, "model-a", codec)) for own, (_, codec) in zip(blocks, kinds, strict=True)]
    return Target(seeds=seeds, check=_check_block, mend=_mend_block)


def more_dtypes(folder: Path) -> Target:
    """For a process of its own: blocks may also have a dtype that no block is written with."""
    codec._DTYPE_TAGS[9] = np.dtype(np.uint16)
    return block(folder)


def _check_block(value: bytes) -> bool:
    try:
        header = decode_header(value, stream_id="cam", block_idx=2)
        layout = header.layout
        stored = StoredBlock(header, memoryview(value))
        out = np.zeros((2, layout.num_layers, *layout.shape[2:]), f"u{layout.dtype.itemsize}")
        with np.errstate(all="ignore"):  # behind a right checksum, scales may be any
            stored.read(range(layout.num_layers), out[0], out[1])
    except CorruptRecord:
        return False
    _, _, *tags, data_at, block_idx, L, H, B, D, id_bytes, print_bytes = _FIXED.unpack_from(value)
    names = value[_FIXED.size : _FIXED.size + id_bytes + print_bytes]
    assert (block_idx, layout.shape) == (2, (L, 2, H, B, D))
    assert tags == [1, 1 + KV_DTYPES.index(layout.dtype), CODECS.index(header.codec)]
    assert (header.stream_id.encode(), header.fingerprint.encode()) == (names[:id_bytes], names[id_bytes:])
    tokens_at = _round_up(_FIXED.size + len(names), 8) + 16 * L
    assert header.tokens.dtype == TOKEN_DTYPE and len(header.tokens) == B
    assert header.tokens.tobytes() == value[tokens_at : tokens_at + B * TOKEN_DTYPE.itemsize]
    found, expected = out.view(layout.dtype).swapaxes(0, 1), _plain_kv(value[data_at:], layout, tags[2])
    if header.codec == NATIVE:
        assert found.tobytes() == expected.tobytes()
    else:
        assert ((found == expected) | np.isnan(expected)).all()
    return True


def _plain_kv(data: bytes, layout: KvLayout, codec_tag: int) -> Array:
    """KV [L, 2, H, B, D] of a value's layers, by the definition; NaN where no number is written like that."""
    L, _, H, B, D = layout.shape
    layers = np.frombuffer(data, np.uint8).reshape(L, -1)
    if codec_tag == 0:
        return np.frombuffer(data, layout.dtype).reshape(layout.shape)
    scales = np.ascontiguousarray(layers[:, : 8 * H * D]).view("<f4").reshape(L, 2, H, 1, D)
    codes = np.ascontiguousarray(layers[:, 8 * H * D :][:, : 2 * H * B * D]).reshape(layout.shape)
    numbers = codes.view(ml_dtypes.float8_e4m3fn if codec_tag == 1 else np.int8).astype(np.float32)
    with np.errstate(all="ignore"):
        return (numbers * scales).astype(layout.dtype)


def _mend_block(value: bytes, rng: random.Random) -> bytes:
    """With right checksums; and, one time in two, with a shape and lengths that fit, or else with one field changed."""
    fields = list(_FIXED.unpack(value[: _FIXED.size].ljust(_FIXED.size, b"\0")))[2:]
    mended = bytearray(value.ljust(_FIXED.size, b"\0"))
    if rng.random() < 0.5:
        fields, mended = _fitting(fields, mended)
    elif rng.random() < 0.5:
        at = rng.randrange(len(fields))
        fields[at] = rng.choice((0, rng.randrange(16), fields[at] ^ 1, 255 if at < _NUM_TAGS else 2**16 - 1))
    _FIXED.pack_into(mended, 0, b"CFRBLOCK", 0, *fields)
    checksum = xxh3_64_intdigest(bytes(mended[16 : fields[_NUM_TAGS]]))
    _FIXED.pack_into(mended, 0, b"CFRBLOCK", checksum, *fields)
    return bytes(mended)


def _fitting(fields: list[int], value: bytearray) -> tuple[list[int], bytearray]:
    """Header fields and a value of a small shape, with a layer table and a length that go with it."""
    _, dtype_tag, codec_tag, _, block_idx, *sizes, id_bytes, print_bytes = fields
    dtype_tag, codec_tag = 1 + (dtype_tag - 1) % len(KV_DTYPES), codec_tag % len(CODECS)
    L, H, B, D = sizes = [1 + (size - 1) % _MOST for size in sizes]
    id_bytes, print_bytes = id_bytes % 200, print_bytes % 200
    layout = KvLayout(num_layers=L, num_heads=H, block_size=B, head_dim=D, dtype=KV_DTYPES[dtype_tag - 1])
    stored_bytes = layout.stored_layer_bytes(CODECS[codec_tag])
    table_at = _round_up(_FIXED.size + id_bytes + print_bytes, 8)
    data_at = _round_up(table_at + 16 * L + B * TOKEN_DTYPE.itemsize, 64)
    fitting = value[: data_at + L * stored_bytes].ljust(data_at + L * stored_bytes, b"\0")
    for layer, start in enumerate(range(data_at, len(fitting), stored_bytes)):
        checksum = xxh3_64_intdigest(bytes(fitting[start : start + stored_bytes]))
        struct.pack_into("<QQ", fitting, table_at + 16 * layer, start, checksum)
    return [1, dtype_tag, codec_tag, data_at, block_idx, *sizes, id_bytes, print_bytes], fitting


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def summary(_: Path) -> Target:
    seeds = []
    for number, told in enumerate((None, False, True)):
        totals = SummaryHeader(start_s=0.5, end_s=1.25, num_tokens=4, num_bytes=2**40, thumbnail=told)
        vectors = np.random.default_rng(number).standard_normal((1 + number, 2, 1, 3)).astype(np.float32)
        seeds.append(encode_summary(_KEY, totals, vectors))
    return Target(seeds=seeds, check=_check_summary, mend=_mend_summary)


def _check_summary(value: bytes) -> bool:
    try:
        totals = decode_summary_header(_KEY, value)
        vectors = decode_summary_vectors(_KEY, value)
    except CorruptRecord:
        return False
    assert encode_summary(_KEY, totals, vectors) == value
    return True


def _mend_summary(value: bytes, rng: random.Random) -> bytes:
    """With right checksums; one time in two also with as many vectors as its shape asks for, if those are few."""
    fixed = value[_SEALED_BYTES:][: _SUMMARY.size].ljust(_SUMMARY.size, b"\0")
    *fields, _ = _SUMMARY.unpack(fixed)
    data = value[_SEALED_BYTES + _SUMMARY.size :]
    if rng.random() < 0.5:
        size = 4 * int(np.prod(fields[3:7], dtype=object))
        data = data[:size].ljust(size, b"\0") if size <= 4096 else data
    checksum = xxh3_64_intdigest(data, seed=xxh3_64_intdigest(_KEY))
    return seal(b"SUMM", _KEY, _SUMMARY.pack(*fields, checksum)) + data
