"""The store on disk: its promises, and what only a disk can do to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest

from memory_store import (
    KV_DTYPES,
    CorruptRecord,
    InvalidRecord,
    Store,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    UnsupportedFormat,
)
from tests.memory_store.conformance import (
    BFLOAT16,
    D,
    FakeClock,
    H,
    S,
    StoreConformance,
    expected_kv,
    fetch,
    fill,
    make_block,
    make_commit,
    make_record,
    same_bits,
)

ROOT = Path(__file__).parents[2]


def run_python(code: str, *args: object, **options: object) -> subprocess.Popen[str]:
    """Another process running `code`, which may import what this file may."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, args)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes, **options)


class TestStore(StoreConformance):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def store(self, tmp_path: Path, clock: FakeClock) -> Store:
        with Store.open(tmp_path / "data", clock=clock) as store:
            yield store


@pytest.mark.parametrize("dtype", KV_DTYPES, ids=str)
def test_a_reopened_store_gives_back_the_same_bits(tmp_path: Path, dtype: np.dtype) -> None:
    queries = np.random.default_rng(0).standard_normal((S, H, D)).astype(np.float32)
    with Store.open(tmp_path) as store:
        blocks = fill(store, 4, dtype=dtype)
        before = store.stats("cam"), store.load_state("cam"), store.get_stream("cam")
        hits = store.search("cam", queries, limit=3, blocks=range(4))
    with Store.open(tmp_path, read_only=True) as store:
        assert same_bits(fetch(store, [0, 1, 2, 3]), expected_kv(blocks))
        assert (store.stats("cam"), store.load_state("cam"), store.get_stream("cam")) == before
        assert store.search("cam", queries, limit=3, blocks=range(4)) == hits
        assert store.read_thumbnails("cam", [2]) == [b"jpeg 2"]
        with pytest.raises(StoreUnavailable, match="read-only"):
            store.commit([make_commit(make_block(4), num_blocks=5)])


WRITER = """
import sys
from memory_store import Store
from tests.memory_store.conformance import make_block, make_commit, make_record
store = Store.open(sys.argv[1], map_size=1 << 20)
store.create_stream(make_record())
for at in range(store.stats("cam").num_blocks, 10**6):
    store.commit([make_commit(make_block(at), num_blocks=at + 1)])
    print(at, flush=True)
"""


def test_all_that_was_committed_survives_kill_9(tmp_path: Path) -> None:
    for _ in range(3):
        writer = run_python(WRITER, tmp_path)
        last = [writer.stdout.readline() for _ in range(20)][-1]
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        acknowledged = int([last, *rest.split()][-1])
        with Store.open(tmp_path) as store:
            count = store.stats("cam").num_blocks
            assert count >= acknowledged + 1
            assert store.load_state("cam").num_blocks == count
            assert same_bits(fetch(store, list(range(count))), expected_kv([make_block(at) for at in range(count)]))


def test_a_second_writing_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    writer = run_python(WRITER, tmp_path)
    try:
        writer.stdout.readline()
        with pytest.raises(StoreLocked, match=f"process {writer.pid}") as caught:
            Store.open(tmp_path)
        assert caught.value.ids["pid"] == writer.pid
        with Store.open(tmp_path, read_only=True, map_size=1 << 20) as store:  # the file outgrows this map
            seen = 0
            while seen < 1000:
                writer.stdout.readline()
                seen = store.stats("cam").num_blocks
                assert same_bits(fetch(store, [seen - 1]), expected_kv([make_block(seen - 1)]))
    finally:
        writer.kill()
        writer.communicate()
    Store.open(tmp_path).close()


def test_opening_twice_in_one_process_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path):
        for read_only in (False, True):
            with pytest.raises(StoreLocked, match=str(os.getpid())):
                Store.open(tmp_path, read_only=read_only)
    with Store.open(tmp_path, read_only=True), pytest.raises(StoreLocked):
        Store.open(tmp_path)
    Store.open(tmp_path).close()


@pytest.mark.parametrize("manifest", [{"format": 3, "shards": 1}, {"format": 99, "shards": 4}])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path, manifest: dict, read_only: bool) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UnsupportedFormat, match=f"format {manifest['format']}"):
        Store.open(tmp_path, read_only=read_only)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"format": "one"}', "\x00"])
def test_a_damaged_manifest_is_corrupt(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(CorruptRecord, match="manifest"):
        Store.open(tmp_path)


def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        for read_only in (False, True):
            with pytest.raises(StoreUnavailable):
                Store.open(path, read_only=read_only)
    with pytest.raises(StoreUnavailable, match="holds no store"):
        Store.open(tmp_path / "missing", read_only=True)
    assert not (tmp_path / "missing").exists()
    with Store.open(tmp_path / "good"):
        pass
    shutil.rmtree(tmp_path / "good" / "shard-0000")
    with pytest.raises(StoreUnavailable):
        Store.open(tmp_path / "good", read_only=True)
    (tmp_path / "good" / "shard-0000").mkdir()
    (tmp_path / "good" / "shard-0000" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptRecord):
        Store.open(tmp_path / "good")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_unavailable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnavailable, match="denied"):
        Store.open(tmp_path / "data")


FILLER = """
import resource, sys
from memory_store import Store, StoreFull
from tests.memory_store.conformance import *
store = Store.open(sys.argv[1])
fill(store, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
count = 1
try:
    while True:
        store.commit([make_commit(make_block(count), num_blocks=count + 1)])
        count += 1
except StoreFull as full:
    print("full", full)
assert 1 < count == store.stats("cam").num_blocks == store.load_state("cam").num_blocks
assert same_bits(fetch(store, list(range(count))), expected_kv([make_block(at) for at in range(count)]))
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
store.commit([make_commit(make_block(count), num_blocks=count + 1)])
print(count)
"""


@pytest.mark.parametrize("limit", [1 << 20, (1 << 20) + 100])  # the latter ends in the middle of a page
def test_a_full_disk_loses_nothing_and_the_store_goes_on_once_there_is_room(tmp_path: Path, limit: int) -> None:
    filler = run_python(FILLER, tmp_path, limit)
    out, _ = filler.communicate()
    assert filler.returncode == 0, out
    assert "no space left" in out
    count = int(out.split()[-1]) + 1
    with Store.open(tmp_path) as store:
        assert same_bits(fetch(store, list(range(count))), expected_kv([make_block(at) for at in range(count)]))


def test_the_map_grows_as_needed_but_not_under_an_open_reader_of_the_same_thread(tmp_path: Path) -> None:
    with Store.open(tmp_path, map_size=1 << 18) as store:
        blocks = fill(store, 1)
        large = [make_block(at) for at in range(1, 300)]
        with store.reader("cam", [0], fingerprint="model-a"), pytest.raises(StoreUnavailable, match="close them"):
            store.commit([make_commit(*large, num_blocks=300)])
        store.commit([make_commit(*large, num_blocks=300)])
        assert same_bits(fetch(store, list(range(300))), expected_kv(blocks + large))


@pytest.mark.parametrize("what", ["header", "tokens", "kv"])
def test_a_flipped_bit_in_the_file_is_never_read_as_data(tmp_path: Path, what: str) -> None:
    with Store.open(tmp_path) as store:
        blocks = fill(store, 3)
    path = tmp_path / "shard-0000" / "data.mdb"
    data = bytearray(path.read_bytes())
    needle = {"header": b"model-a", "tokens": blocks[1].tokens.tobytes(), "kv": blocks[1].kv[1].tobytes()}[what]
    at = data.index(b"CFRBLOCK", data.index(needle) - 4096) if what != "header" else data.index(b"CFRBLOCK")
    at = data.index(needle, at)
    data[at + 3] ^= 4
    path.write_bytes(data)
    broken = 1 if what != "header" else None
    with Store.open(tmp_path, read_only=True) as store:
        failed = []
        for block_idx in range(3):
            try:
                assert same_bits(fetch(store, [block_idx]), expected_kv([blocks[block_idx]]))
            except CorruptRecord as error:
                assert error.ids["block_idx"] == block_idx
                failed.append(block_idx)
        assert len(failed) == 1
        assert broken in (None, *failed)
        if what == "kv":  # the other layers are still good
            assert same_bits(fetch(store, [1], layers=range(2, 3)), expected_kv([blocks[1]], range(2, 3)))
            assert same_bits(store.read_tokens("cam", [1])[0], blocks[1].tokens)


@pytest.mark.parametrize("kind", [b"SUMM", b"STAT", b"THUM", b"HEAD", b"STRM"])
def test_a_flipped_bit_in_a_small_value_is_corrupt(tmp_path: Path, kind: bytes) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 1)
    path = tmp_path / "shard-0000" / "data.mdb"
    data = bytearray(path.read_bytes())
    at = data.find(kind)
    while at >= 0:  # older copies of the page are still in the file
        data[at + 20] ^= 1
        at = data.find(kind, at + 1)
    path.write_bytes(data)
    with Store.open(tmp_path, read_only=True) as store, pytest.raises(CorruptRecord):
        store.load_state("cam")
        store.read_thumbnails("cam", [0])
        store.search("cam", np.ones((S, H, D), np.float32), limit=1, blocks=range(1))


def test_readers_and_a_writer_work_at_once_and_never_see_half_a_commit(tmp_path: Path) -> None:
    queries = np.random.default_rng(0).standard_normal((S, H, D)).astype(np.float32)
    done, failures = threading.Event(), []

    def look(store: Store) -> None:
        try:
            while not done.is_set():
                count = store.stats("cam").num_blocks
                assert count % 2 == 0
                if not count:
                    continue
                last = [count - 1, count - 2]
                assert same_bits(fetch(store, last), expected_kv([make_block(at) for at in last]))
                hits = store.search("cam", queries, limit=3, blocks=range(count))[0]
                assert len({hit.block_idx for hit in hits}) == min(3, count)
                assert len(store.times("cam")) >= count
        except BaseException as error:
            failures.append(error)

    with Store.open(tmp_path, map_size=1 << 18) as store:  # small: it must grow several times
        store.create_stream(make_record())
        threads = [threading.Thread(target=look, args=(store,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for at in range(0, 400, 2):
                store.commit([make_commit(make_block(at), make_block(at + 1), num_blocks=at + 2)])
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert failures == []


def test_writes_that_are_undone_end_however_busy_readers_are(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 1)
        blobs, stop = store._shard("cam").blobs, threading.Event()

        def read() -> None:
            while not stop.is_set():
                with blobs.read() as snapshot:
                    for _ in range(50):
                        snapshot.get("streams", b"cam")

        def fail(snapshot: object) -> None:
            with snapshot.nested() as inner:  # type: ignore[attr-defined]
                inner.put("meta", b"x", b"y")
                raise CorruptRecord("no")

        def write() -> None:
            for _ in range(30):
                with pytest.raises(CorruptRecord, match="no"):
                    blobs.write(fail)

        readers = [threading.Thread(target=read, daemon=True) for _ in range(8)]
        writer = threading.Thread(target=write, daemon=True)
        for thread in (*readers, writer):
            thread.start()
        writer.join(60)
        undone = not writer.is_alive()
        stop.set()
        for thread in (*readers, writer):
            thread.join()
        assert undone


def test_two_threads_may_read_disjoint_layers_through_one_reader(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        blocks = fill(store, 6)
        with store.reader("cam", range(6), fingerprint="model-a", threads=2) as reader:
            out = np.zeros((2, 3, H, 24, D), BFLOAT16)
            halves = [range(0, 2), range(2, 3)]
            threads = [
                threading.Thread(target=reader.read, args=(part, *out[:, part.start : part.stop])) for part in halves
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert same_bits(out, expected_kv(blocks))


def test_closing_the_store_ends_its_readers(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    fill(store, 1)
    reader = store.reader("cam", [0], fingerprint="model-a")
    forgotten = store.reader("cam", [0], fingerprint="model-a")
    del forgotten
    store.close()
    out = np.zeros((3, H, 4, D), BFLOAT16)
    with pytest.raises(StoreUnavailable):
        reader.read(range(3), out, out)


def test_a_deleted_stream_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 5)
        store.put_turns("cam/1", b"turns", 1e12)
        store.delete_stream("cam")
        store.upkeep.housekeep()
    with lmdb.open(str(tmp_path / "shard-0000"), max_dbs=16) as env, env.begin() as txn:
        left = {name: txn.stat(env.open_db(name, txn))["entries"] for name in env.dbs(txn)}
    assert left.pop(b"meta") == 1  # the counter of stream numbers
    assert set(left.values()) == {0}


def test_a_forked_child_cannot_use_the_parent_s_store(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store, 1)
        child = os.fork()
        if not child:
            try:
                store.stats("cam")
            except StoreUnavailable:
                os._exit(17)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17


def test_errors_say_what_they_are_about() -> None:
    error = InvalidRecord("one line", stream_id="cam")
    assert isinstance(error, StoreError)
    assert StoreFull("full", path="/x").ids == {"path": "/x"}
