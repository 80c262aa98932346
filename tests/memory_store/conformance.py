"""What every store must do. `StoreConformance` is inherited once per store; its `store` fixture gives an empty one."""

from __future__ import annotations

import math
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from memory_store import (
    KV_DTYPES,
    TOKEN_DTYPE,
    Block,
    BlockConflict,
    BlockNotFound,
    Commit,
    EpochFenced,
    FingerprintMismatch,
    Hit,
    InvalidRecord,
    Store,
    StoreUnavailable,
    StreamExists,
    StreamNotFound,
    StreamRecord,
    StreamState,
    StreamStats,
    TimeRange,
)

L, H, B, D, S, V = 3, 2, 4, 8, 2, 2
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class FakeClock:
    """Unix time as a test sets it."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make_tokens(block_idx: int, size: int = B) -> np.ndarray:
    """Tokens at times block_idx, block_idx + 1/size, ..."""
    tokens = np.zeros(size, TOKEN_DTYPE)
    tokens["frame_idx"] = block_idx * size + np.arange(size)
    tokens["timestamp_s"] = block_idx + np.arange(size) / size
    tokens["pos"] = 7 * block_idx + np.arange(size)
    tokens["row"], tokens["col"] = -1, np.arange(size)
    return tokens


def make_block(block_idx: int, *, stream_id: str = "cam", dtype: np.dtype = BFLOAT16, **changes: object) -> Block:
    """A block whose content follows from its number; KV holds every bit pattern there is, NaNs too."""
    rng = np.random.default_rng(block_idx)
    kv = rng.integers(0, 256, (L, 2, H, B, D * dtype.itemsize), dtype=np.uint8).view(dtype)
    summary = rng.standard_normal((S, V, H, D)).astype(np.float32)
    fields = {"tokens": make_tokens(block_idx), "kv": kv, "summary": summary, "thumbnail": b"jpeg %d" % block_idx}
    return Block(stream_id=stream_id, block_idx=block_idx, **(fields | changes))


def make_commit(*blocks: Block, num_blocks: int, stream_id: str = "cam", epoch: int = 1) -> Commit:
    state = StreamState(epoch=epoch, num_blocks=num_blocks, payload=b"state %d" % num_blocks)
    return Commit(stream_id=stream_id, state=state, blocks=blocks)


def make_record(stream_id: str = "cam", **changes: object) -> StreamRecord:
    fields = {"fingerprint": "model-a", "settings": {"tau": 0.5, "window": [1, 2]}, "labels": {"site": "north"}}
    return StreamRecord(stream_id=stream_id, created_s=12.5, **(fields | changes))


def fill(store: Store, count: int, *, stream_id: str = "cam", dtype: np.dtype = BFLOAT16) -> list[Block]:
    """Create the stream and commit `count` blocks to it."""
    blocks = [make_block(at, stream_id=stream_id, dtype=dtype) for at in range(count)]
    store.create_stream(make_record(stream_id))
    store.commit([make_commit(*blocks, num_blocks=count, stream_id=stream_id)])
    return blocks


def fetch(store: Store, block_idxs: list[int], *, layers: range = range(L), threads: int = 1) -> np.ndarray:
    """Keys and values of the blocks as the reader gives them: [2, l, H, K * B, D]."""
    with store.reader("cam", block_idxs, fingerprint="model-a", threads=threads) as reader:
        _, _, heads, size, head_dim = reader.shape
        out = np.zeros((2, len(layers), heads, len(block_idxs) * size, head_dim), reader.dtype)
        assert reader.read(layers, out[0], out[1]) == out.nbytes
    return out


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def expected_kv(blocks: list[Block], layers: range = range(L)) -> np.ndarray:
    joined = np.concatenate([block.kv.view(f"u{block.kv.dtype.itemsize}") for block in blocks], axis=3)
    return joined[layers.start : layers.stop].swapaxes(0, 1).view(blocks[0].kv.dtype)


def brute_force(blocks: list[Block], queries: np.ndarray, *, per_head: bool) -> np.ndarray:
    """Score of every block by the definition, one cosine at a time: [lists, N]."""

    def cosine(left: np.ndarray, right: np.ndarray) -> float:
        norms = math.hypot(*left) * math.hypot(*right)
        return float(left.astype(float) @ right.astype(float)) / norms if norms else 0.0

    rows = []
    for layer, query in enumerate(queries):
        heads = [[[cosine(query[h], b.summary[layer, v, h]) for h in range(H)] for v in range(V)] for b in blocks]
        per_vector = np.array(heads)  # [N, V, H]
        rows += list(per_vector.max(1).T) if per_head else [per_vector.mean(2).max(1)]
    return np.array(rows)


class StoreConformance:
    """Inherit, and give fixtures `store` (empty, with `clock` as its clock) and `clock` (a FakeClock)."""

    def test_a_created_stream_reads_back_and_creating_it_again_returns_the_first(self, store: Store) -> None:
        record = make_record()
        assert store.create_stream(record) == record
        again = make_record(labels={"site": "south"}, settings={"window": (1, 2), "tau": 0.5})
        assert store.create_stream(again) == record
        assert store.get_stream("cam") == record
        store.create_stream(make_record("attic"))
        assert [stream.stream_id for stream in store.list_streams()] == ["attic", "cam"]

    def test_other_immutable_fields_are_refused_by_name(self, store: Store) -> None:
        store.create_stream(make_record())
        with pytest.raises(StreamExists, match="fingerprint"):
            store.create_stream(make_record(fingerprint="model-b"))
        with pytest.raises(StreamExists, match=r"settings\.fps, settings\.tau"):
            store.create_stream(make_record(settings={"tau": 0.6, "window": [1, 2], "fps": None}))
        with pytest.raises(InvalidRecord, match="JSON"):
            store.create_stream(make_record("other", settings={"tau": object()}))

    def test_every_call_on_a_missing_stream_names_it(self, store: Store) -> None:
        calls = [
            lambda: store.get_stream("cam"),
            lambda: store.delete_stream("cam"),
            lambda: store.load_state("cam"),
            lambda: store.stats("cam"),
            lambda: store.times("cam"),
            lambda: store.blocks_in("cam", TimeRange()),
            lambda: store.read_tokens("cam", [0]),
            lambda: store.read_thumbnails("cam", [0]),
            lambda: store.reader("cam", [0], fingerprint="model-a"),
            lambda: store.search("cam", np.ones((S, H, D), np.float32), limit=1, blocks=range(1)),
            lambda: store.commit([make_commit(num_blocks=0)]),
        ]
        for call in calls:
            with pytest.raises(StreamNotFound, match="'cam'"):
                call()

    def test_a_new_stream_is_empty_everywhere(self, store: Store) -> None:
        store.create_stream(make_record())
        assert store.load_state("cam") is None
        assert store.stats("cam") == StreamStats(num_blocks=0, num_tokens=0, num_bytes=0)
        assert store.times("cam").shape == (0, 2)
        assert len(store.blocks_in("cam", TimeRange())) == 0
        assert store.search("cam", np.ones((S, H, D), np.float32), limit=3, blocks=range(9)) == [[], []]
        with pytest.raises(BlockNotFound):
            store.reader("cam", [], fingerprint="model-a")

    def test_committed_metadata_reads_back(self, store: Store) -> None:
        blocks = fill(store, 3)
        state = StreamState(epoch=1, num_blocks=4, payload=bytes(range(256)))
        plain = make_block(3, thumbnail=None)
        store.commit([Commit(stream_id="cam", state=state, blocks=(plain,))])
        assert store.load_state("cam") == state
        assert all(map(np.array_equal, store.read_tokens("cam", [3, 0]), [plain.tokens, blocks[0].tokens]))
        assert store.read_thumbnails("cam", [3, 0, 0]) == [None, b"jpeg 0", b"jpeg 0"]
        assert store.times("cam").tolist() == [[at, at + 0.75] for at in range(4)]
        stats = store.stats("cam")
        assert (stats.num_blocks, stats.num_tokens, stats.start_s, stats.end_s) == (4, 4 * B, 0.0, 3.75)
        assert stats.num_bytes > 4 * plain.kv.nbytes

    @pytest.mark.parametrize("dtype", KV_DTYPES, ids=str)
    @pytest.mark.parametrize("threads", [1, 3])
    def test_kv_reads_back_bit_identical_in_the_order_asked(self, store: Store, dtype: np.dtype, threads: int) -> None:
        blocks = fill(store, 5, dtype=dtype)
        asked = [4, 0, 2, 2]
        found = fetch(store, asked, threads=threads)
        assert same_bits(found, expected_kv([blocks[at] for at in asked]))
        part = fetch(store, asked, layers=range(1, 3), threads=threads)
        assert same_bits(part, expected_kv([blocks[at] for at in asked], range(1, 3)))

    def test_kv_can_be_read_into_strided_arrays_and_raw_ones(self, store: Store) -> None:
        blocks = fill(store, 2)
        keys = np.zeros((L, H, 2 * B + 3, D + 5), np.uint16)[:, :, 1:-2, 2:-3]
        values = np.zeros((H, L, 2 * B, D), BFLOAT16).swapaxes(0, 1)
        with store.reader("cam", [0, 1], fingerprint="model-a") as reader:
            assert all(map(np.array_equal, reader.tokens, [block.tokens for block in blocks]))
            reader.read(range(L), keys, values)
            for wrong in (np.zeros((L, H, B, D), BFLOAT16), np.zeros(values.shape, np.float32), values[..., ::-1]):
                with pytest.raises(InvalidRecord):
                    reader.read(range(L), keys, wrong)
            with pytest.raises(InvalidRecord):
                reader.read(range(1, L + 1), keys, values)
        expected = expected_kv(blocks)
        assert same_bits(keys.view(BFLOAT16), expected[0])
        assert same_bits(values, expected[1])
        with pytest.raises(StoreUnavailable):
            reader.read(range(L), keys, values)

    def test_a_reader_refuses_another_fingerprint_and_missing_blocks(self, store: Store) -> None:
        fill(store, 2)
        with pytest.raises(FingerprintMismatch):
            store.reader("cam", [0], fingerprint="model-b")
        for bad in (2, -1):
            with pytest.raises(BlockNotFound):
                store.reader("cam", [0, bad], fingerprint="model-a")
            with pytest.raises(BlockNotFound):
                store.read_tokens("cam", [bad])

    def test_a_commit_may_be_repeated_and_the_first_write_wins(self, store: Store) -> None:
        blocks = fill(store, 2)
        before = store.stats("cam")
        other_kv = make_block(1, kv=blocks[0].kv, thumbnail=b"other")
        store.commit([make_commit(other_kv, make_block(2), num_blocks=3)])
        assert store.stats("cam").num_blocks == before.num_blocks + 1
        assert same_bits(fetch(store, [1]), expected_kv([blocks[1]]))
        assert store.read_thumbnails("cam", [1]) == [b"jpeg 1"]
        with pytest.raises(BlockConflict):
            store.commit([make_commit(make_block(1, tokens=make_tokens(5)), num_blocks=3)])

    @pytest.mark.parametrize(
        "bad",
        [
            make_commit(make_block(3), num_blocks=3),
            make_commit(make_block(2), num_blocks=2),
            make_commit(num_blocks=3),
            make_commit(make_block(2, stream_id="other"), num_blocks=3),
            make_commit(make_block(2, dtype=np.dtype(np.float16)), num_blocks=3),
            make_commit(make_block(2, summary=np.ones((S, V + 1, H, D), np.float32)), num_blocks=3),
            make_commit(make_block(2, tokens=make_tokens(0)), num_blocks=3),
            make_commit(make_block(2, tokens=make_tokens(2)[::-1].copy()), num_blocks=3),
        ],
        ids=[
            "gap",
            "state behind",
            "state ahead",
            "other stream",
            "dtype",
            "summary",
            "time goes back",
            "within a block",
        ],
    )
    def test_an_invalid_commit_leaves_nothing_behind(self, store: Store, bad: Commit) -> None:
        fill(store, 2)
        fill(store, 1, stream_id="door")
        before = store.stats("cam"), store.load_state("cam"), store.stats("door"), store.load_state("door")
        good = make_commit(make_block(1, stream_id="door"), num_blocks=2, stream_id="door")
        with pytest.raises(InvalidRecord):
            store.commit([good, bad])
        after = store.stats("cam"), store.load_state("cam"), store.stats("door"), store.load_state("door")
        assert after == before
        store.commit([good, make_commit(make_block(2), num_blocks=3)])
        assert (store.stats("cam").num_blocks, store.stats("door").num_blocks) == (3, 2)

    def test_an_earlier_owner_is_fenced_off(self, store: Store) -> None:
        fill(store, 1)
        store.commit([make_commit(num_blocks=1, epoch=5)])
        with pytest.raises(EpochFenced):
            store.commit([make_commit(make_block(1), num_blocks=2, epoch=4)])
        store.commit([make_commit(make_block(1), num_blocks=2, epoch=5)])
        assert store.stats("cam").num_blocks == 2

    def test_a_claim_makes_a_new_owner_and_fences_the_old(self, store: Store) -> None:
        store.create_stream(make_record())
        first = store.claim("cam")
        assert store.load_state("cam") == StreamState(epoch=first, num_blocks=0, payload=b"")
        store.commit([make_commit(make_block(0), num_blocks=1, epoch=first)])
        second = store.claim("cam")
        assert second > first
        with pytest.raises(EpochFenced):
            store.commit([make_commit(make_block(1), num_blocks=2, epoch=first)])
        assert store.load_state("cam") == StreamState(epoch=second, num_blocks=1, payload=b"state 1")
        store.commit([make_commit(make_block(1), num_blocks=2, epoch=second)])
        with pytest.raises(StreamNotFound):
            store.claim("other")

    def test_labels_can_be_changed_and_nothing_else_with_them(self, store: Store) -> None:
        stored = store.create_stream(make_record(labels={"place": "door"}))
        store.commit([make_commit(make_block(0), num_blocks=1)])
        assert store.relabel("cam", {"place": "yard"}) == replace(stored, labels={"place": "yard"})
        assert store.get_stream("cam").labels == {"place": "yard"}
        assert store.stats("cam").num_blocks == 1
        with pytest.raises(StreamNotFound):
            store.relabel("other", {})

    def test_tenants_may_give_the_same_names(self, store: Store) -> None:
        for name in ("acme:cam", "other:cam", "cam"):
            store.create_stream(make_record(name, tenant=name.rpartition(":")[0]))
        store.delete_stream("acme:cam")
        assert [record.stream_id for record in store.list_streams()] == ["cam", "other:cam"]
        for name in (":cam", "Acme:cam", "a:b:cam"):
            with pytest.raises(InvalidRecord):
                make_record(name)

    def test_a_time_range_selects_the_blocks_it_overlaps(self, store: Store) -> None:
        fill(store, 6)  # block i spans i .. i + 0.75
        cases = [((0.75, 2.0), [0, 1, 2]), ((0.8, 0.9), []), ((-5, 0), [0]), ((5.75, 9), [5]), ((6, 9), [])]
        for (start_s, end_s), expected in cases:
            assert list(store.blocks_in("cam", TimeRange(start_s=start_s, end_s=end_s))) == expected
        assert store.blocks_in("cam", TimeRange()) == range(6)

    @pytest.mark.parametrize("per_head", [False, True])
    @pytest.mark.parametrize(
        ("limit", "inside"), [(3, range(40)), (5, range(7, 19)), (100, range(30, 99)), (0, range(9))]
    )
    def test_search_ranks_blocks_by_the_definition(
        self, store: Store, per_head: bool, limit: int, inside: range
    ) -> None:
        blocks = fill(store, 40)
        queries = np.random.default_rng(1).standard_normal((S, H, D)).astype(np.float32)
        found = store.search("cam", queries, limit=limit, blocks=inside, per_head=per_head)
        chosen = [block for block in blocks if block.block_idx in inside]
        scores = brute_force(chosen, queries, per_head=per_head)
        assert len(found) == len(scores)
        for hits, row in zip(found, scores, strict=True):
            best = np.argsort(-row, kind="stable")[:limit]
            assert [hit.block_idx for hit in hits] == [chosen[at].block_idx for at in best]
            assert np.allclose([hit.score for hit in hits], row[best], atol=1e-5)

    def test_search_sees_blocks_committed_after_it_first_ran(self, store: Store) -> None:
        fill(store, 2)
        target = make_block(2)
        queries = target.summary[:, 1]
        assert len(store.search("cam", queries, limit=9, blocks=range(9))[0]) == 2
        store.commit([make_commit(target, num_blocks=3)])
        assert [hits[0].block_idx for hits in store.search("cam", queries, limit=1, blocks=range(9))] == [2, 2]

    def test_ties_go_to_the_lower_block_also_where_the_limit_cuts(self, store: Store) -> None:
        store.create_stream(make_record())
        same = np.ones((S, V, H, D), np.float32)
        summaries = [np.zeros_like(same)] * 3 + [same * (1 + at) for at in range(27)] + [-same]
        blocks = [make_block(at, summary=summary.astype(np.float32)) for at, summary in enumerate(summaries)]
        store.commit([make_commit(*blocks, num_blocks=len(blocks))])
        ones, all_blocks = np.ones((S, H, D), np.float32), range(len(blocks))
        for hits in store.search("cam", ones, limit=4, blocks=all_blocks):
            assert hits == [Hit(block_idx=at, score=1.0) for at in (3, 4, 5, 6)]
        for hits in store.search("cam", ones, limit=29, blocks=all_blocks):
            assert [hit.block_idx for hit in hits] == [*range(3, 30), 0, 1]
            assert hits[-1].score == 0.0
        for hits in store.search("cam", 0 * ones, limit=2, blocks=range(5, 20), per_head=True):
            assert hits == [Hit(block_idx=5, score=0.0), Hit(block_idx=6, score=0.0)]

    def test_search_refuses_queries_it_cannot_rank(self, store: Store) -> None:
        fill(store, 2)
        good = np.ones((S, H, D), np.float32)
        for bad in (good[0], good[:1], good * np.nan):
            with pytest.raises(InvalidRecord):
                store.search("cam", bad, limit=1, blocks=range(2))
        with pytest.raises(InvalidRecord):
            store.search("cam", good, limit=-1, blocks=range(2))
        with pytest.raises(InvalidRecord):
            store.search("cam", good, limit=1, blocks=range(0, 2, 2))

    @pytest.mark.parametrize("per_head", [False, True])
    def test_all_streams_are_searched_as_one(self, store: Store, per_head: bool) -> None:
        blocks: dict[tuple[str, int], Block] = {}
        for number, name in enumerate(("cam", "door", "attic")):
            rng = np.random.default_rng(number)
            own = [
                make_block(at, stream_id=name, summary=rng.standard_normal((S, V, H, D)).astype(np.float32))
                for at in range(5 + number)
            ]
            store.create_stream(make_record(name))
            store.commit([make_commit(*own, num_blocks=len(own), stream_id=name)])
            blocks |= {(name, block.block_idx): block for block in own}
        queries = np.random.default_rng(9).standard_normal((S, H, D)).astype(np.float32)

        def check(**narrowed: object) -> None:
            within = [name for name in blocks if name[0] in narrowed.get("streams", ("cam", "door", "attic"))]
            ranges = narrowed.get("time_range", {})
            within = [name for name in within if "time_range" not in narrowed or 1 <= name[1] <= 3]
            within = [name for name in within if not isinstance(ranges, dict) or not ranges or name[0] in ranges]
            scores = brute_force([blocks[name] for name in within], queries, per_head=per_head)
            wanted = [[within[at] for at in np.argsort(-row)[:9]] for row in scores]
            found = store.library.search(queries, fingerprint="model-a", limit=9, per_head=per_head, **narrowed)
            assert [[(hit.stream_id, hit.block_idx) for hit in hits] for hits in found] == wanted
            for hits, row in zip(found, scores, strict=True):
                np.testing.assert_allclose([hit.score for hit in hits], -np.sort(-row)[:9], atol=3e-6)

        check()
        check(streams=["door", "attic", "cellar"])
        check(streams=["cam"], time_range=TimeRange(start_s=1.1, end_s=3.2))
        check(streams=["cam", "attic"], time_range={"cam": TimeRange(start_s=1.1, end_s=3.2), "door": TimeRange()})
        store.delete_stream("door")
        blocks = {name: block for name, block in blocks.items() if name[0] != "door"}
        check()
        assert store.library.search(queries, fingerprint="other", limit=9, per_head=per_head) == [
            [] for _ in range(S * (H if per_head else 1))
        ]

    def test_a_deleted_stream_is_gone_and_its_name_starts_anew(self, store: Store, clock: FakeClock) -> None:
        fill(store, 3)
        fill(store, 2, stream_id="door")
        store.search("cam", np.ones((S, H, D), np.float32), limit=1, blocks=range(3))
        store.put_turns("cam/s1", b"turns", clock.now_s + 9)
        store.put_turns("camera/s1", b"others", clock.now_s + 9)
        store.delete_stream("cam")
        assert [stream.stream_id for stream in store.list_streams()] == ["door"]
        assert store.get_turns("cam/s1", clock.now_s) is None
        assert store.get_turns("camera/s1", clock.now_s) == b"others"
        store.create_stream(make_record(fingerprint="model-b"))
        assert store.load_state("cam") is None
        assert store.stats("cam").num_blocks == 0
        assert store.search("cam", np.ones((S, H, D), np.float32), limit=1, blocks=range(3)) == [[], []]
        assert store.stats("door").num_blocks == 2
        store.commit([make_commit(make_block(0), num_blocks=1)])
        assert store.read_thumbnails("cam", [0]) == [b"jpeg 0"]

    def test_turns_live_until_they_expire(self, store: Store, clock: FakeClock) -> None:
        store.put_turns("cam/one", b"a", clock.now_s + 10)
        store.put_turns("cam/one", b"b", clock.now_s + 20)
        assert store.get_turns("cam/one", clock.now_s + 19.9) == b"b"
        assert store.get_turns("cam/one", clock.now_s + 20) is None
        assert store.get_turns("cam/two", clock.now_s) is None
        clock.now_s += 30
        store.put_turns("cam/two", b"c", math.inf)
        assert store.get_turns("cam/one", clock.now_s - 30) is None
        assert store.get_turns("cam/two", 1e300) == b"c"
        for session_id, expires_s in (("", 1.0), ("x" * 401, 1.0), ("x", math.nan)):
            with pytest.raises(InvalidRecord):
                store.put_turns(session_id, b"", expires_s)

    def test_a_closed_store_says_so(self, store: Store) -> None:
        fill(store, 1)
        store.close()
        store.close()
        calls = [
            lambda: store.get_stream("cam"),
            lambda: store.create_stream(make_record()),
            lambda: store.commit([make_commit(num_blocks=1)]),
            lambda: store.put_turns("s", b"", 1.0),
            store.list_streams,
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable, match="closed"):
                call()
