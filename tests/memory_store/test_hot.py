"""The hot tier: bounded, never stale, and never a way around a checksum."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from memory_store import CorruptRecord, KvDropped, Retention, Store
from memory_store.codec import decode_header, encode_block
from memory_store.hot import HotBlocks, HotStats
from memory_store.stored import StoredBlock
from tests.memory_store.conformance import (
    BFLOAT16,
    B,
    D,
    FakeClock,
    H,
    L,
    expected_kv,
    fetch,
    fill,
    make_block,
    make_commit,
    make_record,
    same_bits,
)

BLOCK_BYTES = len(encode_block(make_block(0), "model-a"))
FOUR_BLOCKS = 4 * BLOCK_BYTES


def stored(block_idx: int) -> StoredBlock:
    """A block whose layers have all been verified."""
    value = encode_block(make_block(block_idx), "model-a")
    block = StoredBlock(decode_header(value, stream_id="cam", block_idx=block_idx), value)
    out = np.empty((L, 2, H, B, D), np.uint16)
    block.read(range(L), out[:, 0], out[:, 1])
    return block


def held(hot: HotBlocks, number: int = 0) -> list[int]:
    """Which of the first ten blocks are in the tier; asking makes the later ones the more recently used."""
    return [at for at in range(10) if hot.get(number, at)]


def spoil(folder: Path, block_idxs: list[int]) -> None:
    """Change a byte of each block's KV in the file under an open store, whose memory map shows it at once."""
    path = folder / "shard-0000" / "data.mdb"
    data = path.read_bytes()
    with path.open("r+b") as file:
        for block_idx in block_idxs:
            file.seek(data.index(make_block(block_idx).kv[1].tobytes()))
            file.write(b"\xff\xfe\xfd\xfc")


def test_the_least_recently_used_go_once_the_bytes_are_too_many() -> None:
    hot = HotBlocks(FOUR_BLOCKS)
    for at in range(4):
        hot.keep(0, stored(at))
    hot.get(0, 0)
    hot.keep(0, stored(4))
    assert held(hot) == [0, 2, 3, 4]
    assert hot.stats() == HotStats(hits=5, misses=6, num_blocks=4, num_bytes=FOUR_BLOCKS)
    assert held(hot, 1) == []


def test_a_block_larger_than_the_tier_leaves_it_as_it_is() -> None:
    hot = HotBlocks(BLOCK_BYTES)
    hot.keep(0, stored(0))
    value = encode_block(make_block(1, kv=np.zeros((L + 1, 2, H, B, D), BFLOAT16)), "model-a")
    hot.keep(0, StoredBlock(decode_header(value, stream_id="cam", block_idx=1), value, verified=True))
    assert held(hot) == [0]


def test_only_what_was_verified_before_is_taken_on_trust() -> None:
    value = bytearray(encode_block(make_block(0), "model-a"))
    value[-1] ^= 1
    header = decode_header(value, stream_id="cam", block_idx=0)
    out = np.empty((L, 2, H, B, D), np.uint16)
    StoredBlock(header, memoryview(value), verified=True).read(range(L), out[:, 0], out[:, 1])
    with pytest.raises(CorruptRecord):
        StoredBlock(header, memoryview(value)).read(range(L), out[:, 0], out[:, 1])


def test_a_block_kept_twice_counts_once() -> None:
    hot = HotBlocks(FOUR_BLOCKS)
    for _ in range(2):
        hot.keep(0, stored(1))
    assert hot.stats() == HotStats(num_blocks=1, num_bytes=BLOCK_BYTES)


def test_a_dropped_stream_is_gone_for_good_and_others_stay() -> None:
    hot = HotBlocks(FOUR_BLOCKS)
    for number in (0, 1):
        hot.keep(number, stored(0))
    hot.drop(0)
    hot.keep(0, stored(0))
    assert (held(hot, 0), held(hot, 1)) == ([], [0])
    assert hot.stats().num_bytes == BLOCK_BYTES


def test_a_block_not_wholly_verified_may_not_be_kept() -> None:
    value = encode_block(make_block(0), "model-a")
    block = StoredBlock(decode_header(value, stream_id="cam", block_idx=0), value)
    with pytest.raises(AssertionError):
        HotBlocks(FOUR_BLOCKS).keep(0, block)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_hot_block_is_read_from_ram_and_others_are_still_verified(tmp_path: Path, threads: int) -> None:
    with Store.open(tmp_path, hot_bytes=FOUR_BLOCKS) as store:
        blocks = fill(store, 3)
        fetch(store, [1, 0], threads=threads)
        assert store.hot_stats() == HotStats(misses=2, num_blocks=2, num_bytes=2 * BLOCK_BYTES)
        spoil(tmp_path, [0, 1, 2])
        asked = [0, 1, 0]
        assert same_bits(fetch(store, asked, threads=threads), expected_kv([blocks[at] for at in asked]))
        assert store.hot_stats().hits == 2
        with pytest.raises(CorruptRecord):
            fetch(store, [1, 2], threads=threads)
        assert store.hot_stats().num_blocks == 2


def test_a_hot_quantized_block_reads_as_it_did(tmp_path: Path) -> None:
    block = make_block(0, kv=np.arange(L * 2 * H * B * D).reshape(L, 2, H, B, D).astype(BFLOAT16))
    with Store.open(tmp_path, hot_bytes=FOUR_BLOCKS) as store:
        store.create_stream(make_record(settings={"kv_codec": "int8"}))
        store.commit([make_commit(block, num_blocks=1)])
        first, second = fetch(store, [0]), fetch(store, [0])
        assert same_bits(first, second)
        assert not same_bits(first, expected_kv([block]))
        assert store.hot_stats().hits == 1


def test_without_hot_bytes_nothing_is_kept(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 2)
        for _ in range(2):
            fetch(store, [0, 1])
        assert store.hot_stats() == HotStats(misses=4)


def test_a_block_read_layer_by_layer_is_kept_after_the_last(tmp_path: Path) -> None:
    with Store.open(tmp_path, hot_bytes=FOUR_BLOCKS) as store:
        blocks = fill(store, 1)
        out = np.empty((2, 1, H, B, D), BFLOAT16)
        counts = []
        with store.reader("cam", [0], fingerprint="model-a") as reader:
            for layer in (2, 0, 1):
                reader.read(range(layer, layer + 1), out[0], out[1])
                counts.append(store.hot_stats().num_blocks)
        assert counts == [0, 0, 1]
        assert same_bits(fetch(store, [0]), expected_kv(blocks))
        assert store.hot_stats().hits == 1


def test_a_stream_made_anew_under_a_deleted_name_shares_nothing_with_it(tmp_path: Path) -> None:
    with Store.open(tmp_path, hot_bytes=FOUR_BLOCKS) as store:
        fill(store, 2)
        fetch(store, [0, 1])
        with store.reader("cam", [0], fingerprint="model-a") as late:
            store.delete_stream("cam")
            assert store.hot_stats().num_bytes == 0
            out = np.empty((2, L, H, B, D), BFLOAT16)
            late.read(range(L), out[0], out[1])
        assert store.hot_stats().num_bytes == 0
        other = [make_block(at, kv=make_block(7 + at).kv) for at in range(2)]
        store.create_stream(make_record())
        store.commit([make_commit(*other, num_blocks=2)])
        for _ in range(2):
            assert same_bits(fetch(store, [0, 1]), expected_kv(other))


def test_kv_that_retention_dropped_is_not_read_though_it_is_hot(tmp_path: Path) -> None:
    clock = FakeClock()
    with Store.open(tmp_path, hot_bytes=FOUR_BLOCKS, clock=clock) as store:
        fill(store, 2)
        fetch(store, [0, 1])
        store.upkeep.set_retention("cam", Retention(summary_only_after_s=60))
        clock.now_s += 61
        store.upkeep.housekeep()
        with pytest.raises(KvDropped):
            fetch(store, [0])


def test_readers_in_many_threads_share_a_tier_too_small_for_all(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def look(store: Store, seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(60):
                asked = rng.integers(0, 8, 3).tolist()
                assert same_bits(fetch(store, asked, threads=2), expected_kv([make_block(at) for at in asked]))
                assert store.hot_stats().num_bytes <= FOUR_BLOCKS
        except BaseException as error:
            failures.append(error)

    with Store.open(tmp_path, hot_bytes=FOUR_BLOCKS) as store:
        fill(store, 8)
        threads = [threading.Thread(target=look, args=(store, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = store.hot_stats()
    assert failures == []
    assert stats.num_blocks == 4
    assert min(stats.hits, stats.misses) > 0
