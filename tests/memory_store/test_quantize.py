"""KV in a byte a number: how far it may be off, what is refused, and that a store keeps its promises for it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store import KV_DTYPES, Block, CorruptRecord, InvalidRecord, Store
from memory_store.codec import decode_header, encode_block
from memory_store.quantize import QUANTIZERS
from memory_store.stored import StoredBlock
from tests.memory_store.conformance import (
    BFLOAT16,
    B,
    D,
    H,
    L,
    expected_kv,
    fetch,
    make_block,
    make_commit,
    make_record,
    make_tokens,
    same_bits,
)

SIZES = st.integers(1, 5)
LOSSY = list(QUANTIZERS)


def finite_block(block_idx: int, dtype: np.dtype = BFLOAT16) -> Block:
    """Channels of magnitudes from 1e-3 to 1e3, the first of all zeros."""
    rng = np.random.default_rng(block_idx)
    kv = rng.standard_normal((L, 2, H, B, D)) * 10 ** rng.uniform(-3, 3, (L, 2, H, 1, D))
    kv[..., 0] = 0
    return make_block(block_idx, kv=kv.astype(dtype))


def read(value: bytes | memoryview, block: Block) -> np.ndarray:
    """KV of a block's value, [L, 2, H, B, D]."""
    header = decode_header(value, stream_id=block.stream_id, block_idx=block.block_idx)
    assert header.layout.dtype == block.kv.dtype
    out = np.zeros(block.kv.shape, f"u{block.kv.dtype.itemsize}")
    StoredBlock(header, memoryview(value)).read(range(len(out)), out[:, 0], out[:, 1])
    return out.view(block.kv.dtype)


def kept(block: Block, codec: str) -> np.ndarray:
    return read(encode_block(block, "model-a", codec), block)


def allowed_error(kv: np.ndarray, codec: str) -> np.ndarray:
    """By the definition: of the code, and of rounding to the dtype; float64."""
    exact = np.abs(kv.astype(np.float64))
    peaks = exact.max(axis=3, keepdims=True)
    info = ml_dtypes.finfo(kv.dtype)
    if codec == "int8":
        error = np.broadcast_to(peaks / 127 / 2, kv.shape)
    else:
        error = np.maximum(exact / 16, peaks / 448 / 1024)
    return error * (1 + 1e-5) + np.maximum((exact + error) * float(info.eps) / 2, float(info.smallest_subnormal) / 2)


@pytest.mark.parametrize("codec", LOSSY)
@given(
    shape=st.tuples(SIZES, st.just(2), SIZES, st.integers(1, 70), SIZES),
    dtype=st.sampled_from(KV_DTYPES),
    exponent=st.integers(-7, 4),
    seed=st.integers(0, 2**32),
)
def test_no_number_is_off_by_more_than_its_channel_allows(codec, shape, dtype, exponent, seed) -> None:
    rng = np.random.default_rng(seed)
    spread = 10.0 ** rng.uniform(-2, 0, (*shape[:3], 1, shape[4]))
    kv = (np.clip(rng.standard_normal(shape), -6, 6) * spread * 10.0**exponent).astype(dtype)
    tokens = np.zeros(shape[3], make_block(0).tokens.dtype)
    summary = np.zeros((1, 1, shape[2], shape[4]), np.float32)
    found = kept(make_block(0, kv=kv, tokens=tokens, summary=summary), codec)
    assert (np.abs(found.astype(np.float64) - kv.astype(np.float64)) <= allowed_error(kv, codec)).all()


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("dtype", KV_DTYPES, ids=str)
def test_a_channel_of_outliers_costs_the_others_nothing(codec: str, dtype: np.dtype) -> None:
    block = finite_block(0, dtype)
    loud = block.kv.copy()
    loud[..., 1] = 3e4
    before, after = kept(block, codec), kept(make_block(0, kv=loud), codec)
    assert np.allclose(after[..., 1].astype(float), 3e4, rtol=0.01)
    assert same_bits(np.delete(before, 1, -1), np.delete(after, 1, -1))


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("dtype", KV_DTYPES, ids=str)
def test_zeros_and_the_ends_of_the_dtype_s_range_come_back(codec: str, dtype: np.dtype) -> None:
    info = ml_dtypes.finfo(dtype)
    kv = np.zeros((L, 2, H, B, D), dtype)
    kv[..., 0, 1], kv[..., 1, 1] = info.max, info.min
    kv[..., 0, 2] = info.smallest_subnormal
    with np.errstate(all="raise", under="ignore"):
        found = kept(make_block(0, kv=kv), codec).astype(np.float64)
    assert not found[..., 0].any()
    assert np.allclose(found[..., 1], kv[..., 1].astype(np.float64), rtol=2e-7)
    assert (np.abs(found[..., 2] - kv[..., 2].astype(np.float64)) <= float(info.smallest_subnormal)).all()


@pytest.mark.parametrize("codec", LOSSY)
def test_scales_lie_beside_the_codes_of_their_layer(codec: str) -> None:
    heads, size, head_dim = 3, 5, 7
    kv = np.random.default_rng(0).standard_normal((L, 2, heads, size, head_dim), np.float32)
    kv[..., 0] = 0
    summary = np.zeros((1, 1, heads, head_dim), np.float32)
    block = make_block(0, kv=kv, summary=summary, tokens=make_tokens(0, size))
    value = np.frombuffer(encode_block(block, "model-a", codec), np.uint8)
    header = decode_header(value.data, stream_id="cam", block_idx=0)
    stored = value[header.header_bytes :].reshape(L, 384)  # 42 channels of a scale and 5 codes, and 6 zeros
    peaks = np.abs(kv).max(axis=3)
    scales = stored[:, :168].copy().view(np.float32).reshape(peaks.shape)
    assert np.allclose(scales, np.where(peaks > 0, peaks / np.float32(QUANTIZERS[codec].top), 1), rtol=1e-6)
    assert not stored[:, 378:].any()


def test_every_float8_code_is_read_as_ml_dtypes_reads_it() -> None:
    codes = np.arange(256, dtype=np.uint8)
    wanted = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    found = np.empty(256, np.float32)
    QUANTIZERS["fp8"].from_codes(codes, found)
    assert same_bits(found[np.isfinite(wanted)], wanted[np.isfinite(wanted)])


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_nothing_is_kept(tmp_path: Path, codec: str, bad: float) -> None:
    kv = finite_block(0).kv.copy()
    kv[1, 0, 1, 2, 3] = bad
    with Store.open(tmp_path) as store:
        store.create_stream(make_record(settings={"kv_codec": codec}))
        with pytest.raises(InvalidRecord, match=f"NaN or infinity in layer 1, which codec '{codec}'") as caught:
            store.commit([make_commit(make_block(0, kv=kv), num_blocks=1)])
        assert caught.value.ids["block_idx"] == 0
        assert store.stats("cam").num_blocks == 0


def test_an_unknown_codec_is_refused_when_the_stream_is_made(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for bad in ("int4", None, ["int8"]):
            with pytest.raises(InvalidRecord, match="kv_codec"):
                store.create_stream(make_record(settings={"kv_codec": bad}))
        assert store.list_streams() == []


def fill(store: Store, codec: str, dtype: np.dtype, count: int) -> list[Block]:
    """A stream of that codec; returns its blocks as they must read back."""
    blocks = [make_block(at, kv=finite_block(at, dtype).kv) for at in range(count)]
    store.create_stream(make_record(settings={"kv_codec": codec}))
    store.commit([make_commit(*blocks, num_blocks=count)])
    return [make_block(block.block_idx, kv=kept(block, codec)) for block in blocks]


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("dtype", KV_DTYPES, ids=str)
def test_a_reopened_store_reads_whole_blocks_and_single_layers_alike(
    tmp_path: Path, codec: str, dtype: np.dtype
) -> None:
    with Store.open(tmp_path) as store:
        blocks = fill(store, codec, dtype, 4)
        assert store.stats("cam").num_bytes < 4 * (blocks[0].kv.size + 8 * L * H * D + 5000)
    asked = [3, 0, 2, 2]
    wanted = expected_kv([blocks[at] for at in asked])
    with Store.open(tmp_path, read_only=True) as store:
        for threads in (1, 3):
            assert same_bits(fetch(store, asked, threads=threads), wanted)
        for layer in range(L):
            part = fetch(store, asked, layers=range(layer, layer + 1))
            assert same_bits(part, wanted[:, layer : layer + 1])


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("what", ["scales", "codes"])
def test_a_flipped_bit_is_never_read_as_data_and_the_other_layers_stay_good(
    tmp_path: Path, codec: str, what: str
) -> None:
    with Store.open(tmp_path) as store:
        blocks = fill(store, codec, BFLOAT16, 2)
    value = encode_block(make_block(1, kv=finite_block(1).kv), "model-a", codec)
    header = decode_header(value, stream_id="cam", block_idx=1)
    layer_at = header.header_bytes + (len(value) - header.header_bytes) // L
    path = tmp_path / "shard-0000" / "data.mdb"
    data = bytearray(path.read_bytes())
    at = data.index(bytes(value[layer_at:])) + (7 if what == "scales" else 2 * H * D * 4 + 7)
    data[at] ^= 0x40
    path.write_bytes(data)
    with Store.open(tmp_path, read_only=True) as store:
        with pytest.raises(CorruptRecord, match="checksum of layer 1 differs") as caught:
            fetch(store, [0, 1])
        assert caught.value.ids["block_idx"] == 1
        assert same_bits(fetch(store, [1], layers=range(2, 3)), expected_kv([blocks[1]], range(2, 3)))
        assert same_bits(fetch(store, [0]), expected_kv([blocks[0]]))
