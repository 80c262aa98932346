"""Stored bytes: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from memory_store import KV_DTYPES, TOKEN_DTYPE, Block, CorruptRecord, StreamState
from memory_store.codec import BlockHeader, KvLayout, decode_header, encode_block, layer_bytes, verify_layers
from memory_store.values import (
    SummaryHeader,
    decode_state,
    decode_summary_header,
    decode_summary_vectors,
    encode_state,
    encode_summary,
    seal,
    unseal,
)
from tests.memory_store.conformance import BFLOAT16, make_block, same_bits

SIZES = st.integers(1, 5)
TOTALS = SummaryHeader(start_s=0.5, end_s=1.25, num_tokens=4, num_bytes=2**40)
KEY = b"\x00\x00\x00\x07\x00\x00\x00\x02"


def verify(value: bytes, block: Block) -> tuple[BlockHeader, np.ndarray]:
    """Header and layers of a block's value, every byte verified."""
    header = decode_header(value, stream_id=block.stream_id, block_idx=block.block_idx)
    layers = layer_bytes(header, value)
    verify_layers(header, layers, 0)
    return header, layers


def decode(value: bytes, block: Block) -> tuple[np.ndarray, np.ndarray, str]:
    """Tokens, native KV and fingerprint of a block's value, every byte verified."""
    header, layers = verify(value, block)
    return header.tokens, layers.view(header.layout.dtype).reshape(header.layout.shape), header.fingerprint


@given(
    sizes=st.tuples(SIZES, SIZES, st.integers(1, 70), SIZES),
    dtype=st.sampled_from(KV_DTYPES),
    block_idx=st.integers(0, 2**32 - 1),
    stream_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    fingerprint=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
)
def test_a_block_comes_back_bit_identical(sizes, dtype, block_idx, stream_id, fingerprint, seed) -> None:
    layers, heads, size, dim = sizes
    rng = np.random.default_rng(seed)
    block = Block(
        stream_id=stream_id,
        block_idx=block_idx,
        tokens=rng.integers(0, 256, size * TOKEN_DTYPE.itemsize, dtype=np.uint8).view(TOKEN_DTYPE),
        kv=rng.integers(0, 256, (layers, 2, heads, size, dim * dtype.itemsize), dtype=np.uint8).view(dtype),
        summary=np.zeros((1, 1, heads, dim), np.float32),
    )
    value = bytes(encode_block(block, fingerprint))
    tokens, kv, found = decode(value, block)
    assert same_bits(tokens, block.tokens)
    assert same_bits(kv, block.kv)
    assert found == fingerprint
    header = decode_header(value, stream_id=stream_id, block_idx=block_idx)
    assert header.header_bytes % 64 == 0
    assert len(value) == header.header_bytes + layers * KvLayout.of(block.kv).layer_bytes


#: xxh3_64 of `make_block(2)` as version 1 first wrote it, before there was another codec than native.
FIRST_BYTES = {"float32": "3768f36f2ecef540", "float16": "8bd97f4658e522c0", "bfloat16": "a2c678333de3cbd3"}


@pytest.mark.parametrize("dtype", KV_DTYPES, ids=str)
def test_a_native_value_is_the_same_bytes_as_ever(dtype: np.dtype) -> None:
    value = encode_block(make_block(2, dtype=dtype), "model-a")
    assert xxhash.xxh3_64_hexdigest(value) == FIRST_BYTES[dtype.name]


@pytest.mark.parametrize("codec", ["fp8", "int8"])
@given(data=st.data(), flip=st.integers(1, 255))
def test_a_changed_byte_of_a_quantized_block_is_always_noticed(codec: str, data, flip: int) -> None:
    block = make_block(2, kv=np.ones((3, 2, 2, 4, 8), BFLOAT16))
    changed = bytearray(encode_block(block, "model-a", codec))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= flip
    with pytest.raises(CorruptRecord, match="stored block 2 of stream 'cam' is corrupt"):
        verify(bytes(changed), block)


@pytest.mark.parametrize("at", [18, 19])
def test_a_tag_of_a_later_version_is_refused_by_name(at: int) -> None:
    changed = bytearray(BLOCK_VALUE)
    changed[at] = 77
    header_bytes = int.from_bytes(changed[20:24], "little")
    changed[8:16] = xxhash.xxh3_64_intdigest(changed[16:header_bytes]).to_bytes(8, "little")
    with pytest.raises(CorruptRecord, match=f"unknown version 1, .*{'dtype' if at == 18 else 'codec'} tag 77"):
        verify(bytes(changed), BLOCK)


BLOCK = make_block(2)
BLOCK_VALUE = bytes(encode_block(BLOCK, "model-a"))


@given(at=st.integers(0, len(BLOCK_VALUE) - 1), flip=st.integers(1, 255))
def test_a_changed_byte_of_a_block_is_always_noticed(at: int, flip: int) -> None:
    changed = bytearray(BLOCK_VALUE)
    changed[at] ^= flip
    with pytest.raises(CorruptRecord, match="stored block 2 of stream 'cam' is corrupt"):
        decode(bytes(changed), BLOCK)


@given(size=st.integers(0, len(BLOCK_VALUE) - 1), more=st.binary(max_size=9))
def test_a_block_cut_short_or_too_long_is_always_noticed(size: int, more: bytes) -> None:
    for value in (BLOCK_VALUE[:size], BLOCK_VALUE + b"\x00" + more, BLOCK_VALUE[size:][:-1]):
        with pytest.raises(CorruptRecord):
            decode(value, BLOCK)


@given(noise=st.binary(max_size=300), keep=st.integers(0, 64))
def test_hostile_bytes_are_corrupt_and_nothing_else(noise: bytes, keep: int) -> None:
    with pytest.raises(CorruptRecord):
        decode(BLOCK_VALUE[:keep] + noise, BLOCK)


def test_another_block_s_value_is_corrupt() -> None:
    for other in (make_block(3), make_block(2, stream_id="door")):
        with pytest.raises(CorruptRecord, match="it holds block"):
            decode(BLOCK_VALUE, other)


@given(shape=st.tuples(SIZES, SIZES, SIZES, SIZES), at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_summary_comes_back_and_a_changed_byte_is_noticed(shape, at: int, flip: int) -> None:
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    value = encode_summary(KEY, TOTALS, vectors)
    assert decode_summary_header(KEY, value) == TOTALS
    assert same_bits(decode_summary_vectors(KEY, value), vectors)
    changed = bytearray(value)
    changed[at % len(value)] ^= flip
    for bad, key in ((bytes(changed), KEY), (value[:-1], KEY), (value + b"\x00", KEY), (value, KEY[::-1])):
        with pytest.raises(CorruptRecord):
            decode_summary_vectors(key, bad)


@given(epoch=st.integers(0, 2**64 - 1), count=st.integers(0, 2**64 - 1), payload=st.binary(max_size=50), data=st.data())
def test_a_state_comes_back_and_a_changed_byte_is_noticed(epoch: int, count: int, payload: bytes, data) -> None:
    state = StreamState(epoch=epoch, num_blocks=count, payload=payload)
    value = encode_state(KEY, state)
    assert decode_state(KEY, value) == state
    changed = bytearray(value)
    changed[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    for bad in (bytes(changed), value[: data.draw(st.integers(0, len(value) - 1))], value + b"\x00"):
        with pytest.raises(CorruptRecord):
            decode_state(KEY, bad)


def test_a_sealed_value_opens_only_as_its_kind_and_under_its_key() -> None:
    value = seal(b"THUM", KEY, b"jpeg")
    assert bytes(unseal(b"THUM", KEY, value)) == b"jpeg"
    for kind, key in ((b"STAT", KEY), (b"THUM", KEY + b"\x00")):
        with pytest.raises(CorruptRecord):
            unseal(kind, key, value)
