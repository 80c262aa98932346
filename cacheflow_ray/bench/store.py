"""How fast the memory store is, beside what the disk and the memory do with the same bytes in the same run.

bytes that must move    commit: encode (copy and hash) once, write once, sync; fetch: read once, write once, hash once;
                        search: read every vector of the stream once
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread
from time import perf_counter

import faiss
import ml_dtypes
import numpy as np
import torch

from cacheflow_ray.bench.library_index import LibrarySize, measure_library
from cacheflow_ray.bench.measure import describe_machine, interleaved, medians
from cacheflow_ray.bench.results import Part, Target, missed_targets
from cacheflow_ray.errors import UsageError
from memory_store import TOKEN_DTYPE, Block, Commit, Retention, Store, StreamRecord, StreamState
from memory_store.records import Array, JsonValue

PARTS = ("commit", "fetch", "search", "churn", "library")

TARGETS = {
    "commit_over_raw": Target(sign=">=", bound=0.75),
    "commit_over_raw_large": Target(sign=">=", bound=0.75),
    "warm_fetch_over_copy": Target(sign=">=", bound=0.8),
    "warm_fetch_over_copy_one_thread": Target(sign=">=", bound=0.45),
    "cold_fetch_over_read": Target(sign=">=", bound=0.8),
    "search_p50_ms": Target(sign="<=", bound=2.0),
    "search_over_scan": Target(sign="<=", bound=1.5),
    "churn_amplification": Target(sign="<=", bound=1.1),
    "ann_over_flat_speed": Target(sign=">=", bound=10.0),
    "ann_recall_at_64": Target(sign=">=", bound=0.98),
    "ann_open_s": Target(sign="<=", bound=5.0),
    "ann_rebuild_s": Target(sign="<=", bound=90.0),
}

#: [L, H, B, D] of a block of bfloat16 KV of 2.3 and of 10.7 MiB.
SMALL, LARGE = (24, 2, 196, 64), (28, 4, 196, 128)

#: Blocks searched for.
_LIMIT = 64

_CPU = torch.device("cpu")
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSizes:
    """How much to measure.

    Args:
        group: blocks per transaction; groups: of them, timed.
        fetched: blocks read at a time, of a few more that are stored; fetch_repeats: how often.
        searched: blocks of the stream that is searched; search_repeats: how often.
        live, churn: blocks kept, and how many times as many go through.
    """

    group: int = 8
    groups: int = 16
    fetched: int = 64
    fetch_repeats: int = 9
    searched: int = 10_000
    search_repeats: int = 200
    live: int = 100
    churn: int = 10
    library: LibrarySize = field(default_factory=LibrarySize)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """Everything one run measured; `machine`: what on, `seconds`: of the whole run."""

    machine: Mapping[str, JsonValue]
    parts: Mapping[str, Part]
    seconds: float

    title = "memory store"
    targets = TARGETS

    @property
    def ratios(self) -> dict[str, float]:
        return {name: value for part in self.parts.values() for name, value in part.ratios.items()}

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "machine": dict(self.machine),
            "ratios": dict(self.ratios),
            "targets": {name: str(target) for name, target in TARGETS.items() if name in self.ratios},
            "missed": missed_targets(self.ratios, TARGETS),
            "details": {name: dict(part.details) for name, part in self.parts.items()},
            "seconds": self.seconds,
        }


def run_store_bench(
    *, only: Sequence[str] = (), work: Path | None = None, note: Callable[[str], None], sizes: StoreSizes | None = None
) -> StoreReport:
    """Measure the parts named (all, when none is) in a folder that is deleted afterwards.

    Raises:
        UsageError: an unknown part.
    """
    unknown = set(only) - set(PARTS)
    if unknown:
        raise UsageError(f"no part {sorted(unknown)[0]!r}: known are {', '.join(PARTS)}")
    sizes, started = sizes or StoreSizes(), perf_counter()
    folder = Path(mkdtemp(prefix="cacheflow-bench-", dir=work))
    measures: dict[str, Callable[[], Part]] = {
        "commit": lambda: measure_commit(folder, sizes, note),
        "fetch": lambda: measure_fetch(folder, sizes, note),
        "search": lambda: measure_search(folder, sizes, note),
        "churn": lambda: measure_churn(folder, sizes, note),
        "library": lambda: measure_library(folder, note, sizes.library),
    }
    try:
        parts = {name: measure() for name, measure in measures.items() if not only or name in only}
    finally:
        shutil.rmtree(folder)
    return StoreReport(machine=describe_machine(_CPU), parts=parts, seconds=perf_counter() - started)


def measure_commit(folder: Path, sizes: StoreSizes, note: Callable[[str], None]) -> Part:
    """`commit_over_raw` and `commit_over_raw_large`: power-safe commits over the same bytes written and synced."""
    ratios: dict[str, float] = {}
    details: dict[str, JsonValue] = {}
    for name, shape in (("commit_over_raw", SMALL), ("commit_over_raw_large", LARGE)):
        blocks = make_blocks(shape, sizes.group)
        note(f"committing {sizes.groups} groups of {sizes.group} blocks of {blocks[0].kv.nbytes / 2**20:.1f} MiB")
        with _store(folder / "commit") as store, (folder / "raw").open("wb", buffering=0) as raw:
            runs = {"store": _committing(store, blocks), "raw": _writing(raw.fileno(), blocks)}
            seconds = medians(interleaved(runs, sizes.groups, _CPU))
        (folder / "raw").unlink()
        num_bytes = sum(block.kv.nbytes for block in blocks)
        ratios[name] = seconds["raw"] / seconds["store"]
        details[name] = {f"{run}_mb_per_s": num_bytes / value / 1e6 for run, value in seconds.items()}
    return Part(ratios=ratios, details=details)


def measure_fetch(folder: Path, sizes: StoreSizes, note: Callable[[str], None]) -> Part:
    """Blocks into a preallocated buffer, verified: warm over a copy out of a mapped file, cold over reading a file."""
    num_stored = sizes.fetched + sizes.fetched // 4
    blocks = make_blocks(SMALL, num_stored)
    chosen = np.sort(np.random.default_rng(0).choice(num_stored, sizes.fetched, replace=False)).tolist()
    num_layers, heads, num_tokens, head_dim = SMALL
    out = np.zeros((2, num_layers, heads, sizes.fetched * num_tokens, head_dim), _BFLOAT16)
    plain = folder / "plain"
    plain.write_bytes(b"".join(blocks[at].kv.tobytes() for at in chosen))
    note(f"fetching {sizes.fetched} blocks of {blocks[0].kv.nbytes / 2**20:.1f} MiB")
    with _store(folder / "fetch") as store:
        _committing(store, blocks)()
        with plain.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            target = np.zeros(out.nbytes, np.uint8)
            runs = {
                "copy": _copying(target, mapped, threads=1),
                "copy_two_threads": _copying(target, mapped, threads=2),
                "fetch": lambda: fetch(store, chosen, out, 1),
                "fetch_two_threads": lambda: fetch(store, chosen, out, 2),
            }
            warm = medians(interleaved(runs, sizes.fetch_repeats, _CPU))
            del runs  # or the map could not be closed
        cold: dict[str, list[float]] = {"read": [], "fetch": []}
    data = folder / "fetch" / "shard-0000" / "data.mdb"
    for _ in range(sizes.fetch_repeats):
        cold["read"].append(_cold_read(plain, target))
        cold["fetch"].append(_cold_fetch(folder / "fetch", data, chosen, out))
    shutil.rmtree(folder / "fetch")
    plain.unlink()
    seconds = medians(cold)
    return Part(
        ratios={
            "warm_fetch_over_copy": warm["copy"] / warm["fetch_two_threads"],
            "warm_fetch_over_copy_one_thread": warm["copy"] / warm["fetch"],
            "cold_fetch_over_read": seconds["read"] / seconds["fetch"],
        },
        details={
            "num_bytes": out.nbytes,
            "warm_ms": {name: 1e3 * value for name, value in warm.items()},
            "cold_ms": {name: 1e3 * value for name, value in seconds.items()},
        },
    )


def measure_search(folder: Path, sizes: StoreSizes, note: Callable[[str], None]) -> Part:
    """`search_p50_ms` with one vector per block, and `search_over_scan`: the worst of shapes over a bare FAISS scan."""
    ratios: dict[str, float] = {}
    details: dict[str, JsonValue] = {}
    for heads, head_dim, vectors in ((2, 64, 1), (2, 64, 8), (4, 128, 1), (4, 128, 4)):
        note(f"searching {sizes.searched} blocks, {vectors} vector(s) of {heads} x {head_dim} each")
        rng = np.random.default_rng(0)
        summaries = rng.standard_normal((sizes.searched, 2, vectors, heads, head_dim), np.float32)
        queries = rng.standard_normal((2, heads, head_dim), np.float32)
        with _store(folder / "search") as store:
            _commit_summaries(store, summaries)
            runs = {
                "search": _searching(store, queries, range(sizes.searched)),
                "scan": _scanning(_bare_indexes(summaries), queries, vectors),
            }
            seconds = medians(interleaved(runs, sizes.search_repeats, _CPU))
        name = f"{heads}x{head_dim}x{vectors}"
        details[name] = {f"{run}_ms": 1e3 * value for run, value in seconds.items()}
        over = seconds["search"] / seconds["scan"]
        if (heads, vectors) == (2, 1):
            ratios["search_p50_ms"] = 1e3 * seconds["search"]
        else:
            ratios["search_over_scan"] = max(over, ratios.get("search_over_scan", 0.0))
    return Part(ratios=ratios, details=details)


def measure_churn(folder: Path, sizes: StoreSizes, note: Callable[[str], None]) -> Part:
    """`churn_amplification`: size of the data file over what is kept, after many times as much went through."""
    (block,) = make_blocks((8, 2, 64, 64), 1)
    note(f"{sizes.churn * sizes.live} blocks through a stream that keeps {sizes.live}")
    with _store(folder / "churn") as store:
        store.upkeep.set_retention("bench", Retention(max_blocks=sizes.live))
        commit = _committing(store, [block])
        for _ in range(sizes.churn * sizes.live):
            commit()
        stats = store.upkeep.stats()
    return Part(
        ratios={"churn_amplification": stats.file_bytes / stats.live_bytes},
        details={"live_bytes": stats.live_bytes, "file_bytes": stats.file_bytes, "blocks": stats.blocks},
    )


def make_blocks(shape: tuple[int, int, int, int], count: int) -> list[Block]:
    """Blocks of random bfloat16 KV [L, 2, H, B, D] with one small summary each, numbered from 0."""
    num_layers, heads, num_tokens, head_dim = shape
    rng = np.random.default_rng(0)
    kv_shape = (num_layers, 2, heads, num_tokens, head_dim)
    return [
        Block(
            stream_id="bench",
            block_idx=at,
            tokens=np.zeros(num_tokens, TOKEN_DTYPE),
            kv=rng.standard_normal(kv_shape, np.float32).astype(_BFLOAT16),
            summary=np.ones((2, 1, heads, head_dim), np.float32),
        )
        for at in range(count)
    ]


@contextmanager
def _store(path: Path) -> Iterator[Store]:
    """An empty store with the stream "bench", deleted when nothing else keeps it (a fetch reads it again)."""
    shutil.rmtree(path, ignore_errors=True)
    with Store.open(path) as store:
        store.create_stream(StreamRecord(stream_id="bench", fingerprint="bench"))
        yield store
    if path.name != "fetch":
        shutil.rmtree(path)


def _committing(store: Store, blocks: Sequence[Block]) -> Callable[[], None]:
    """Commits the blocks as the stream's next ones, each time it is called."""
    done = 0

    def run() -> None:
        nonlocal done
        new = tuple(
            Block(
                stream_id="bench", block_idx=done + at, tokens=block.tokens, kv=block.kv, summary=block.summary
            )
            for at, block in enumerate(blocks)
        )  # fmt: skip
        done += len(new)
        state = StreamState(epoch=0, num_blocks=done, payload=b"")
        store.commit([Commit(stream_id="bench", state=state, blocks=new)])

    return run


def _writing(fd: int, blocks: Sequence[Block]) -> Callable[[], None]:
    views = [block.kv.view(np.uint8).reshape(-1).data for block in blocks]

    def run() -> None:
        for view in views:
            os.write(fd, view)
        os.fsync(fd)

    return run


def fetch(store: Store, chosen: Sequence[int], out: Array, threads: int) -> None:
    """The chosen blocks' KV into `out` [2, L, H, K * B, D]."""
    with store.reader("bench", chosen, fingerprint="bench", threads=threads) as reader:
        reader.read(range(out.shape[1]), out[0], out[1])


def _copying(target: Array, mapped: mmap.mmap, *, threads: int) -> Callable[[], None]:
    """A plain copy out of a mapped file, by one thread or by two that take half each."""
    source = np.frombuffer(mapped, np.uint8)
    half = len(source) // threads

    def run() -> None:
        other = Thread(target=np.copyto, args=(target[half:], source[half:]))
        other.start()
        np.copyto(target[:half], source[:half])
        other.join()

    return run


def _forget(path: Path) -> None:
    """Drop a file from the page cache; nothing may have it mapped."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cold_read(path: Path, target: Array) -> float:
    _forget(path)
    with path.open("rb", buffering=0) as file:
        start = perf_counter()
        view, done = target.data, 0
        while done < len(target):
            done += file.readinto(view[done : done + (8 << 20)]) or 0
        return perf_counter() - start


def _cold_fetch(folder: Path, data: Path, chosen: Sequence[int], out: Array) -> float:
    _forget(data)
    with Store.open(folder, read_only=True) as store:
        start = perf_counter()
        fetch(store, chosen, out, 2)
        return perf_counter() - start


def _commit_summaries(store: Store, summaries: Array) -> None:
    """Blocks of hardly any KV with these summaries [N, S, V, H, D]."""
    heads, head_dim = summaries.shape[3:]
    kv = np.zeros((1, 2, heads, 1, head_dim), np.float32)
    tokens = np.zeros(1, TOKEN_DTYPE)
    for first in range(0, len(summaries), 1000):
        stop = min(first + 1000, len(summaries))
        blocks = tuple(
            Block(stream_id="bench", block_idx=at, tokens=tokens, kv=kv, summary=summaries[at])
            for at in range(first, stop)
        )
        state = StreamState(epoch=0, num_blocks=stop, payload=b"")
        store.commit([Commit(stream_id="bench", state=state, blocks=blocks)])


def _bare_indexes(summaries: Array) -> list[faiss.IndexFlatIP]:
    indexes = []
    for layer in range(summaries.shape[1]):
        vectors = np.ascontiguousarray(summaries[:, layer]).reshape(-1, summaries.shape[3] * summaries.shape[4])
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        indexes.append(index)
    return indexes


def _searching(store: Store, queries: Array, blocks: range) -> Callable[[], object]:
    return lambda: store.search("bench", queries, limit=_LIMIT, blocks=blocks)


def _scanning(indexes: Sequence[faiss.IndexFlatIP], queries: Array, vectors: int) -> Callable[[], object]:
    """As many of the nearest vectors of each layer as the blocks searched for have."""
    rows = queries.reshape(len(queries), 1, -1)
    return lambda: [index.search(row, _LIMIT * vectors) for index, row in zip(indexes, rows, strict=True)]
