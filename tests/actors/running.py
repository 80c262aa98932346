"""A real Ray cluster on this machine for tests, and what they do with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

from cacheflow_ray.actors import topology
from cacheflow_ray.actors.api import FramePayload, NewStream, PayloadKind
from cacheflow_ray.actors.cluster import Cluster
from cacheflow_ray.actors.setup import Setup
from cacheflow_ray.actors.topology import ClusterOptions, Topology
from cacheflow_ray.config import EncoderOptions, ModelOptions, TopologyOptions
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.errors import ClusterUnavailable, EncoderLost
from cacheflow_ray.media import Frame
from tests.oracles import settings

MODEL = "random:tiny-llava-onevision"
FLOAT32 = ModelOptions(device="cpu", dtype="float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A cluster that runs: its options and the topology that stops it."""

    options: ClusterOptions
    topology: Topology

    @property
    def setup(self) -> Setup:
        return self.options.setup()

    def cluster(self) -> Cluster:
        """For one event loop."""
        return Cluster(self.setup)

    def pid(self, name: str) -> int:
        return int(ray.get(ray.get_actor(name, self.setup.namespace).status.remote(), timeout=60)[0])

    def kill(self, name: str) -> None:
        """As the system would for want of memory: at once, in the midst of whatever it does."""
        os.kill(self.pid(name), signal.SIGKILL)


@contextmanager
def running(data: Path, **counts: int) -> Iterator[Running]:
    """A cluster of this process's own, stopped at the end."""
    options = ClusterOptions(
        data=data,
        model=MODEL,
        model_options=FLOAT32,
        encoder=EncoderOptions(torch_threads=1, commit_interval_s=0.1),
        topology=TopologyOptions(**counts),
        source_root=data.parent,
    )
    started = topology.start(options)
    try:
        yield Running(options=options, topology=started)
    finally:
        started.stop()


def raw(frames: Sequence[Frame]) -> list[FramePayload]:
    """Frames as raw RGB: what comes out is what went in."""
    return [
        FramePayload(
            seq=own.seq,
            timestamp_s=own.timestamp_s,
            data=own.image.tobytes(),
            width=own.image.shape[1],
            height=own.image.shape[0],
        )
        for own in frames
    ]


def wanted(name: str, **chosen: object) -> NewStream:
    return NewStream(stream_id=name, settings=settings(**chosen))


async def push_all(
    cluster: Cluster, name: str, frames: Sequence[Frame], *, size: int = 4, between: Callable[[int], None] | None = None
) -> Position:
    """Push a stream to its end, opening it anew for as long as it takes.

    Args:
        between: called before each push with the first frame's number.
    """
    deadline = time.monotonic() + 120
    while True:
        try:
            session = await cluster.open_ingest(wanted(name), PayloadKind.RGB, Overload.BLOCK)
            if session.position.complete:
                return session.position
            for at in range(session.position.next_seq, len(frames), size):
                if between is not None:
                    between(at)
                await session.push(raw(frames[at : at + size]))
            return await session.finish()
        except (EncoderLost, ClusterUnavailable):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
