"""Hostile bytes in every decoder: the exact value that was written, or an error of the store, and little memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from memory_store import Block, CorruptRecord, StreamState, UnsupportedFormat
from memory_store.codec import decode_header, encode_block, layer_bytes, verify_layers
from memory_store.quantize import CODECS
from memory_store.values import (
    SummaryHeader,
    decode_json,
    decode_state,
    decode_summary_header,
    decode_summary_vectors,
    encode_json,
    encode_state,
    encode_summary,
    seal,
    unseal,
)
from tests.memory_store.conformance import make_block

_KEY = b"\x00\x00\x00\x07\x00\x00\x00\x02"
_TOTALS = SummaryHeader(start_s=0.5, end_s=1.25, num_tokens=4, num_bytes=2**40)
_MORE = settings(max_examples=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A kind of stored value: two good values of it, and what reads one back as something to compare."""

    first: bytes
    second: bytes
    decode: Callable[[bytes], Any]


def _block(block_idx: int) -> Block:
    kv = np.random.default_rng(block_idx).standard_normal((3, 2, 2, 4, 8)).astype(np.float16)
    return make_block(block_idx, kv=kv)


def _decode_block(value: bytes) -> Any:
    header = decode_header(value, stream_id="cam", block_idx=2)
    layers = layer_bytes(header, value)
    verify_layers(header, layers, 0)
    named = (header.stream_id, header.block_idx, header.fingerprint, header.layout, header.codec)
    return named, header.tokens.tobytes(), layers.tobytes()


def _summary(seed: int) -> bytes:
    return encode_summary(_KEY, _TOTALS, np.random.default_rng(seed).standard_normal((2, 3, 2, 4)).astype(np.float32))


def _decode_summary(value: bytes) -> Any:
    vectors = decode_summary_vectors(_KEY, value)
    return decode_summary_header(_KEY, value), vectors.shape, vectors.tobytes()


def _state(seed: int) -> bytes:
    return encode_state(_KEY, StreamState(epoch=seed, num_blocks=3, payload=bytes(range(40))))


KINDS = {
    f"block {codec}": Coded(
        first=bytes(encode_block(_block(2), "model-a", codec)),
        second=bytes(encode_block(_block(3), "model-a", codec)),
        decode=_decode_block,
    )
    for codec in CODECS
} | {
    "summary": Coded(first=_summary(0), second=_summary(1), decode=_decode_summary),
    "state": Coded(first=_state(1), second=_state(2), decode=lambda value: decode_state(_KEY, value)),
    "json": Coded(
        first=encode_json(b"HEAD", _KEY, {"num_blocks": 3}),
        second=encode_json(b"HEAD", _KEY, {"num_blocks": 4}),
        decode=lambda value: decode_json(b"HEAD", _KEY, value, dict),
    ),
    "thumbnail": Coded(
        first=seal(b"THUM", _KEY, b"jpeg" * 9),
        second=seal(b"THUM", _KEY, b"other" * 9),
        decode=lambda value: bytes(unseal(b"THUM", _KEY, value)),
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def exact_or_corrupt(coded: Coded, value: bytes) -> None:
    """A value is read as one of the two good ones only if it is that one."""
    try:
        found = coded.decode(value)
    except (CorruptRecord, UnsupportedFormat):
        return
    assert value in (coded.first, coded.second)
    assert found == coded.decode(coded.first if value == coded.first else coded.second)


@kinds
@given(noise=st.binary(max_size=600), keep=st.integers(0, 200))
@_MORE
def test_noise(kind: str, noise: bytes, keep: int) -> None:
    exact_or_corrupt(KINDS[kind], noise)
    exact_or_corrupt(KINDS[kind], KINDS[kind].first[:keep] + noise)


@kinds
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=4))
@_MORE
def test_flipped_bits(kind: str, flips: list[tuple[int, int]]) -> None:
    value = bytearray(KINDS[kind].first)
    for at, bit in flips:
        value[at % len(value)] ^= 1 << bit
    exact_or_corrupt(KINDS[kind], bytes(value))


@kinds
@given(at=st.integers(0, 1 << 20), size=st.integers(0, 1 << 20), more=st.binary(max_size=70))
@_MORE
def test_cut_short_drawn_out_or_with_a_hole(kind: str, at: int, size: int, more: bytes) -> None:
    value = KINDS[kind].first
    start = at % len(value)
    for bad in (value[:start], value + more, value[:start] + more, value[:start] + value[start + size % len(value) :]):
        exact_or_corrupt(KINDS[kind], bad)


@kinds
@given(cuts=st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)), align=st.sampled_from([1, 8, 64]))
@_MORE
def test_two_values_spliced(kind: str, cuts: tuple[int, int], align: int) -> None:
    first, second = KINDS[kind].first, KINDS[kind].second
    start, stop = sorted(cut % (len(first) + 1) // align * align for cut in cuts)
    exact_or_corrupt(KINDS[kind], first[:start] + second[start:stop] + first[stop:])
    exact_or_corrupt(KINDS[kind], first[:start] + second[stop:])


@pytest.mark.parametrize("other", KINDS)
@kinds
def test_a_value_of_one_kind_is_corrupt_as_another(kind: str, other: str) -> None:
    if KINDS[other].decode is not KINDS[kind].decode:
        with pytest.raises(CorruptRecord):
            KINDS[kind].decode(KINDS[other].first)


def peak_bytes(decode: Callable[[], Any]) -> int:
    """The most memory that decoding hostile bytes took."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRecord):
            decode()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


_SIZES = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, 2**16, 2**31, 2**32 - 1]))


@given(sizes=st.tuples(_SIZES, _SIZES, _SIZES, _SIZES), tags=st.binary(min_size=4, max_size=4), data_at=_SIZES)
@_MORE
def test_a_block_header_with_a_right_checksum_and_a_hostile_shape(
    sizes: tuple[int, ...], tags: bytes, data_at: int
) -> None:
    value = bytearray(KINDS["block native"].first)
    if sizes == (3, 2, 4, 8):
        return
    for changed in (tags, value[16:20]):
        value[16:20] = changed
        struct.pack_into("<4I", value, 28, *sizes)
        (real,) = struct.unpack_from("<I", KINDS["block native"].first, 20)
        for end in (data_at, real):
            struct.pack_into("<I", value, 20, end)
            struct.pack_into("<Q", value, 8, xxh3_64_intdigest(bytes(value[16:end])))
            assert peak_bytes(lambda: _decode_block(bytes(value))) < 4 * len(value) + (64 << 10)


@given(shape=st.tuples(_SIZES, _SIZES, _SIZES, _SIZES), data=st.binary(max_size=64))
@_MORE
def test_a_summary_with_a_right_checksum_and_a_hostile_shape(shape: tuple[int, ...], data: bytes) -> None:
    if 0 not in shape and 4 * int(np.prod(shape, dtype=object)) == len(data):
        return
    digest = xxh3_64_intdigest(data, seed=xxh3_64_intdigest(_KEY))
    head = struct.pack("<ddIIIIIIQQ", 0.5, 1.25, 4, *shape, 0, 99, digest)
    value = seal(b"SUMM", _KEY, head) + data
    assert peak_bytes(lambda: decode_summary_vectors(_KEY, value)) < 64 << 10
