"""A service whose processes are killed at random while many streams are pushed and questions are asked; run by a test.

    python -m tests.e2e.chaos --seconds 180 --streams 16

Prints one JSON object: what was killed, how long each role took to answer again, and what the streams hold compared
with streams that nobody disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from cacheflow_ray.actors import topology
from cacheflow_ray.actors.api import PayloadKind
from cacheflow_ray.config import AskOptions, ServiceOptions
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.errors import CacheFlowError
from cacheflow_ray.media import Frame
from cacheflow_ray.models import load_model
from cacheflow_ray.service.client import AsyncClient, IngestOptions
from cacheflow_ray.service.gateway import Gateway
from memory_store import Store, StoreError
from memory_store.testing import MemoryStore
from tests.actors.running import FLOAT32, MODEL, Running, running
from tests.oracles import encode, moving_frames, settings, stored

#: Frames per second of each stream.
_FPS = 4.0
_VICTIMS = ("encoder-0", "encoder-1", "answerer-0", "answerer-1", "store-0", "gateway", "director")


class Chaos:
    """Kills one process after another and waits for each to answer again."""

    def __init__(self, live: Running, seed: int) -> None:
        self._live, self._rng = live, random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.recovered_s: dict[str, list[float]] = defaultdict(list)

    async def go_on(self, end_s: float) -> None:
        """Until that time (`time.monotonic`)."""
        while time.monotonic() < end_s:
            await asyncio.sleep(self._rng.uniform(0.5, 4.0))
            victim = self._rng.choice(_VICTIMS)
            role = victim.partition("-")[0]
            await asyncio.to_thread(self._live.kill, victim)
            started = time.monotonic()
            await asyncio.to_thread(self._answers, victim)
            self.killed[role] += 1
            self.recovered_s[role].append(time.monotonic() - started)

    def _answers(self, name: str) -> None:
        for _ in range(600):
            try:
                self._live.pid(name)
                return
            except Exception:
                time.sleep(0.1)
        raise AssertionError(f"{name} did not come back within a minute")


async def paced(frames: Sequence[Frame], started: float) -> AsyncIterator[Frame]:
    """As a camera gives them."""
    for frame in frames:
        await asyncio.sleep(max(0.0, started + frame.seq / _FPS - time.monotonic()))
        yield frame


async def keep_asking(client: AsyncClient, end_s: float) -> Counter[str]:
    told: Counter[str] = Counter()
    while time.monotonic() < end_s:
        try:
            await client.ask("stream-0", "What is there?", options=AskOptions(max_new_tokens=8)).read()
            told["answered"] += 1
        except (CacheFlowError, StoreError) as error:
            told[type(error).__name__] += 1
        await asyncio.sleep(0.2)
    return told


async def disturbed(
    live: Running, port: int, frames: dict[str, list[Frame]], seconds: float, seed: int
) -> dict[str, object]:
    chaos = Chaos(live, seed)
    options = IngestOptions(settings=settings(), payload=PayloadKind.RGB, patience_s=120)
    started = time.monotonic()
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        pushing = [client.ingest(name, paced(own, started), options=options) for name, own in frames.items()]
        asking = asyncio.create_task(keep_asking(client, started + seconds))
        killing = asyncio.create_task(chaos.go_on(started + seconds))
        views = await asyncio.gather(*pushing)
        took_s = time.monotonic() - started
        told = await asking
        await killing
    return {
        "seconds": took_s,
        "killed": dict(chaos.killed),
        "recovered_s": {role: {"median": median(own), "max": max(own)} for role, own in chaos.recovered_s.items()},
        "questions": dict(told),
        "frames": sum(view.position.frames for view in views),
        "complete": all(view.position.complete for view in views),
    }


def differences(data: Path, frames: dict[str, list[Frame]]) -> dict[str, float]:
    """Blocks, tokens that differ and the largest difference of KV, against streams ingested in this process."""
    torch.set_num_threads(1)  # as in the encoders: products split otherwise are rounded otherwise
    backend = Backend(model=load_model(MODEL, FLOAT32), store=MemoryStore())
    blocks = wrong = 0
    largest = 0.0
    with Store.open(data, read_only=True) as store:
        for name, own in frames.items():
            encode(backend, {name: own}, settings(), chunk=8)
            count = backend.store.stats(name).num_blocks
            wrong += store.stats(name).num_blocks != count
            tokens, kv = stored(Backend(model=backend.model, store=store), name)
            plain_tokens, plain_kv = stored(backend, name)
            wrong += not np.array_equal(tokens, plain_tokens)
            largest = max(largest, float((kv - plain_kv).abs().max()))
            blocks += count
    return {"blocks": blocks, "streams_that_differ": wrong, "largest_kv_difference": largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    count = int(given.seconds * _FPS)
    frames = {f"stream-{at}": moving_frames(count, seed=at) for at in range(given.streams)}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running(data, encoders=2, answerers=2) as live:
            port = live.topology.serve(partial(Gateway, options=ServiceOptions(port=0)))
            live.topology.drain(1.0)
            live.topology.serve(partial(Gateway, options=ServiceOptions(port=port)))
            told = asyncio.run(disturbed(live, port, frames, given.seconds, given.seed))
            live.topology.drain(5.0)
        topology.disconnect()
        told |= differences(data, frames) | {"frames_sent": count * given.streams}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
