"""A real workload on a store, and the check that what it stored is all there, bit for bit.

Every value follows from its stream's name, the stream's generation (how often it was created) and the block's number,
so that a check needs no copy of what was written. Streams whose name ends in "large" have blocks of several pages.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memory_store import Block, Commit, Hit, Store, StreamNotFound, StreamRecord, StreamState, TimeRange
from tests.memory_store.conformance import BFLOAT16, D, H, L, S, V, make_block, make_record, make_tokens, same_bits

ROOT = Path(__file__).parents[3]
_LARGE_B = 96
_QUERIES = np.random.default_rng(7).standard_normal((S, H, D)).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a store holds of one stream; where one could stand, None means that there is no such stream."""

    generation: int
    num_blocks: int


class WrongDataError(AssertionError):
    """The store gave something other than what was stored, without an error."""


def block_of(stream_id: str, generation: int, block_idx: int) -> Block:
    rng = np.random.default_rng(zlib.crc32(f"{stream_id}/{generation}/{block_idx}".encode()))
    size = _LARGE_B if stream_id.endswith("large") else 4
    return make_block(
        block_idx,
        stream_id=stream_id,
        tokens=make_tokens(block_idx, size),
        kv=rng.integers(0, 256, (L, 2, H, size, D * 2), dtype=np.uint8).view(BFLOAT16),
        summary=rng.standard_normal((S, V, H, D)).astype(np.float32),
        thumbnail=b"jpeg %s %d %d" % (stream_id.encode(), generation, block_idx) * 9,
    )


def record_of(stream_id: str, generation: int) -> StreamRecord:
    return make_record(stream_id, settings={"generation": generation}, labels={"name": stream_id})


def state_of(stream_id: str, generation: int, num_blocks: int) -> StreamState:
    payload = b"state %s %d %d" % (stream_id.encode(), generation, num_blocks)
    return StreamState(epoch=1, num_blocks=num_blocks, payload=payload)


def commit_of(stream_id: str, generation: int, blocks: range) -> Commit:
    """The commit that adds `blocks` and the state after them."""
    made = tuple(block_of(stream_id, generation, at) for at in blocks)
    return Commit(stream_id=stream_id, state=state_of(stream_id, generation, blocks.stop), blocks=made)


def plan(seed: str, steps: int, *, before: Held | None = None, generation: int = 0) -> Iterator[Held | None]:
    """What a stream holds after each of `steps` changes: created, some blocks more, now and then deleted.

    Args:
        generation: of the first it creates.
    """
    rng, held = random.Random(seed), before
    for _ in range(steps):
        if held is None:
            held, generation = Held(generation=generation, num_blocks=0), generation + 1
        elif held.num_blocks > 20 and rng.random() < 0.1:
            held = None
        else:
            held = Held(generation=held.generation, num_blocks=held.num_blocks + rng.randint(1, 3))
        yield held


def change(store: Store, stream_id: str, before: Held | None, after: Held | None) -> None:
    """Make the store hold `after` of the stream, by one call."""
    if after is None:
        store.delete_stream(stream_id)
    elif before is None:
        store.create_stream(record_of(stream_id, after.generation))
    else:
        store.commit([commit_of(stream_id, after.generation, range(before.num_blocks, after.num_blocks))])


def work(
    store: Store,
    stream_id: str,
    changes: Iterator[Held | None],
    mark: Callable[[tuple[str, str, Held | None]], object],
    before: Held | None = None,
) -> None:
    """Make the changes, with ("begin", stream, after) and ("acked", stream, after) marked around each."""
    for after in changes:
        mark(("begin", stream_id, after))
        change(store, stream_id, before, after)
        mark(("acked", stream_id, after))
        before = after


def check_stream(store: Store, stream_id: str) -> Held | None:
    """What the store holds of the stream, with every bit of it compared.

    Raises:
        WrongDataError: something differs from what was stored. StoreError: the store noticed it.
    """
    try:
        record = store.get_stream(stream_id)
    except StreamNotFound:
        return None
    generation = record.settings.get("generation")
    _demand(isinstance(generation, int) and record == record_of(stream_id, generation), f"record {record}")
    count = store.stats(stream_id).num_blocks
    expected = state_of(stream_id, generation, count) if count else None
    _demand(store.load_state(stream_id) == expected, f"the state of {stream_id} at {count} blocks")
    if count:
        check_blocks(store, stream_id, generation, count, range(count))
        check_search(store, stream_id, generation, count)
    return Held(generation=generation, num_blocks=count)


def check_blocks(store: Store, stream_id: str, generation: int, count: int, asked: range) -> None:
    """Raise WrongDataError unless the `asked` of the stream's `count` blocks read as they were stored."""
    blocks = [_cached_block(stream_id, generation, at) for at in asked]
    tokens = store.read_tokens(stream_id, asked)
    _demand(all(map(same_bits, tokens, (block.tokens for block in blocks))), f"tokens of {stream_id}")
    _demand(store.read_thumbnails(stream_id, asked) == [block.thumbnail for block in blocks], "thumbnails")
    times = store.times(stream_id)[asked.start : asked.stop]
    _demand(np.array_equal(times, [block.tokens["timestamp_s"][[0, -1]] for block in blocks]), "times")
    everything = TimeRange(start_s=float(asked.start), end_s=asked.stop - 0.5)
    _demand(store.blocks_in(stream_id, everything) == asked, f"blocks_in of {stream_id}")
    check_kv(store, stream_id, generation, asked)


def check_kv(store: Store, stream_id: str, generation: int, asked: range) -> None:
    """Raise WrongDataError unless the KV of the `asked` blocks reads as it was stored."""
    with store.reader(stream_id, asked, fingerprint="model-a") as reader:
        size = reader.shape[3]
        out = np.zeros((2, L, H, len(asked) * size, D), np.uint16)
        reader.read(range(L), out[0], out[1])
    for at, block_idx in enumerate(asked):
        kv = _cached_block(stream_id, generation, block_idx).kv.view(np.uint16)
        same = np.array_equal(out[:, :, :, at * size : (at + 1) * size], kv.swapaxes(0, 1))
        _demand(same, f"KV of block {block_idx} of {stream_id}")


def check_search(store: Store, stream_id: str, generation: int, count: int) -> None:
    """Raise WrongDataError unless all blocks are found, each with its own score."""
    lists = store.search(stream_id, _QUERIES, limit=count, blocks=range(count))
    lists += store.search(stream_id, _QUERIES, limit=count, blocks=range(count), per_head=True)
    expected = np.stack([_scores(stream_id, generation, at) for at in range(count)], axis=1)
    _demand(len(lists) == len(expected), "number of hit lists")
    for hits, scores in zip(lists, expected, strict=True):
        _check_hits(hits, scores)


def _check_hits(hits: list[Hit], scores: np.ndarray) -> None:
    _demand(sorted(hit.block_idx for hit in hits) == list(range(len(scores))), "blocks found")
    found = np.array([hit.score for hit in hits])
    _demand(bool((np.diff(found) <= 0).all()), "order of hits")
    _demand(bool(np.allclose(found, scores[[hit.block_idx for hit in hits]], rtol=0, atol=3e-6)), "scores of hits")


@functools.lru_cache(100_000)
def _scores(stream_id: str, generation: int, block_idx: int) -> np.ndarray:
    """A block's score by the definition: one per summarised layer, then one per layer and head."""

    def units(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    vectors = units(_cached_block(stream_id, generation, block_idx).summary.astype(float))
    cosines = np.einsum("svhd,shd->svh", vectors, units(_QUERIES.astype(float)))
    return np.concatenate([cosines.mean(2).max(1), cosines.max(1).ravel()])


@functools.lru_cache(4_000)
def _cached_block(stream_id: str, generation: int, block_idx: int) -> Block:
    return block_of(stream_id, generation, block_idx)


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise WrongDataError(f"not as stored: {what}")


def start_python(call: str, **arguments: object) -> subprocess.Popen[str]:
    """Another process that calls `module:function` of this folder with JSON arguments; its pipes are text."""
    module, function = call.split(":")
    code = (
        f"import json, sys; from tests.memory_store.faults.{module} import {function}; "
        f"{function}(**json.loads(sys.argv[1]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, json.dumps(arguments, default=str)]
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def run_batches(call: str, total: int, **arguments: object) -> list[dict[str, object]]:
    """The result of each of `total` trials, run in another process; one that kills the process is a "crash".

    Args:
        call: `module:function`, called with `first` and `arguments`; it prints one line of JSON for each trial from
            the number `first` on.
    """
    results: list[dict[str, object]] = []
    while len(results) < total:
        child = start_python(call, first=len(results), **arguments)
        out, _ = child.communicate()
        results += [json.loads(line) for line in out.splitlines()]
        if len(results) < total:
            if child.returncode >= 0:
                raise RuntimeError(f"{call} ended with {child.returncode} after {len(results)} of {total} trials")
            results.append({"outcome": "crash", "error": f"signal {-child.returncode}"})
    return results


def forked(trial: Callable[[], dict[str, object]]) -> dict[str, object]:
    """The trial's result, from a forked process: "crash" or "hang" when that dies of a signal."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        os.write(writing, json.dumps(trial()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        out = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        return {"outcome": "hang" if code == -signal.SIGALRM else "crash", "error": signal.Signals(-code).name}
    return dict(json.loads(out))
