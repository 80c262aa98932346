"""Blocks to the disk and back against the same bytes written, copied or read plainly; and the room they take.

bytes that must move    commit: encode (copy and hash) once, write once, sync; fetch: read once, write once, hash once
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from time import perf_counter

import numpy as np
import torch

from cacheflow_ray.bench.measure import interleaved, medians
from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.store.sizes import StoreSizes
from cacheflow_ray.bench.store.synthetic import BFLOAT16, fresh_store, make_blocks
from memory_store import Block, Commit, Retention, Store, StreamState
from memory_store.records import Array, JsonValue

#: [L, H, B, D] of a block of bfloat16 KV of 2.3 and of 10.7 MiB.
SMALL, LARGE = (24, 2, 196, 64), (28, 4, 196, 128)

_CPU = torch.device("cpu")


def measure_commit(folder: Path, sizes: StoreSizes, note: Callable[[str], None]) -> Part:
    """`commit_over_raw` and `commit_over_raw_large`: power-safe commits over the same bytes written and synced."""
    ratios: dict[str, float] = {}
    details: dict[str, JsonValue] = {}
    for name, shape in (("commit_over_raw", SMALL), ("commit_over_raw_large", LARGE)):
        blocks = make_blocks(shape, sizes.group)
        note(f"committing {sizes.groups} groups of {sizes.group} blocks of {blocks[0].kv.nbytes / 2**20:.1f} MiB")
        with fresh_store(folder / "commit") as store, (folder / "raw").open("wb", buffering=0) as raw:
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
    out = np.zeros((2, num_layers, heads, sizes.fetched * num_tokens, head_dim), BFLOAT16)
    plain = folder / "plain"
    plain.write_bytes(b"".join(blocks[at].kv.tobytes() for at in chosen))
    note(f"fetching {sizes.fetched} blocks of {blocks[0].kv.nbytes / 2**20:.1f} MiB")
    with fresh_store(folder / "fetch", keep=True) as store:
        _committing(store, blocks)()
        with plain.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            target = np.zeros(out.nbytes, np.uint8)
            runs = {
                "copy": _copying(target, mapped, threads=1),
                "copy_two_threads": _copying(target, mapped, threads=2),
                "fetch": lambda: _fetch(store, chosen, out, 1),
                "fetch_two_threads": lambda: _fetch(store, chosen, out, 2),
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


def measure_churn(folder: Path, sizes: StoreSizes, note: Callable[[str], None]) -> Part:
    """`churn_amplification`: size of the data file over what is kept, after many times as much went through."""
    (block,) = make_blocks((8, 2, 64, 64), 1)
    note(f"{sizes.churn * sizes.live} blocks through a stream that keeps {sizes.live}")
    with fresh_store(folder / "churn") as store:
        store.upkeep.set_retention("bench", Retention(max_blocks=sizes.live))
        commit = _committing(store, [block])
        for _ in range(sizes.churn * sizes.live):
            commit()
        stats = store.upkeep.stats()
    return Part(
        ratios={"churn_amplification": stats.file_bytes / stats.live_bytes},
        details={"live_bytes": stats.live_bytes, "file_bytes": stats.file_bytes, "blocks": stats.blocks},
    )


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


def _fetch(store: Store, chosen: Sequence[int], out: Array, threads: int) -> None:
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
        _fetch(store, chosen, out, 2)
        return perf_counter() - start
