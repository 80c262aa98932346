"""The gateway alone: frames that nobody encodes, beside a bare stream of gRPC that carries as much."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from PIL import Image

from cacheflow_ray.actors.setup import GATEWAY
from cacheflow_ray.actors.spawning import spawn
from cacheflow_ray.actors.topology import Topology
from cacheflow_ray.bench.results import Part
from cacheflow_ray.bench.service.bare import SAME, WORD, BareServer, Volley, fire, one
from cacheflow_ray.bench.service.lab import Lab
from cacheflow_ray.bench.service.sink import FAR, SINK, SinkActor, granted, sink_gateway
from cacheflow_ray.service.client.methods import INGEST
from cacheflow_ray.service.v1.ingest_pb2 import Frame, IngestRequest, IngestStart
from memory_store.records import JsonValue

_BARE = "bare"
_GRACE_S = 1.0


def measure_gateway(lab: Lab) -> Part:
    """`gateway_over_echo`: MB/s of JPEGs through the gateway into a sink of its own process, over those of an echo.

    The sink acknowledges at once. Beside it, as MB/s: an actor for a sink (what Ray adds), and a bare stream that
    answers a word instead of the message (what gRPC can do in one direction).
    """
    sizes, seen = lab.sizes, dict[str, list[float]]()
    with _servers(lab) as volleys:
        for at in range(sizes.message_rounds + 1):
            lab.note(f"sending messages: round {at} of {sizes.message_rounds}")
            for name in list(volleys)[:: 1 if at % 2 else -1]:
                seconds = lab.elsewhere(fire, volleys[name]).result()
                if at:
                    seen.setdefault(name, []).append(seconds)
    num_bytes = sizes.channels * sizes.messages * sizes.message_bytes
    speeds = {name: num_bytes / statistics.median(seconds) / 1e6 for name, seconds in seen.items()}
    details: dict[str, JsonValue] = {f"{name}_mb_per_s": speed for name, speed in speeds.items()}
    details |= {"message_bytes": sizes.message_bytes, "calls": sizes.channels, "window": sizes.window}
    details |= {"gateway_over_word": speeds["gateway"] / speeds["word"]}
    return Part(ratios={"gateway_over_echo": speeds["gateway"] / speeds["echo"]}, details=details)


@contextmanager
def _servers(lab: Lab) -> Iterator[dict[str, Volley]]:
    """What to send to each, by the name it is reported under."""
    lab.note("starting a gateway before a sink, and a bare server")
    options = lab.empty_cluster()
    running = Topology(options.setup())
    actor = spawn(SinkActor, SINK, options.topology.namespace)
    gateway = running.serve(partial(sink_gateway, actor=actor, window=lab.sizes.window))
    bare = running.serve(_bare_server, _BARE)
    try:
        yield {
            "echo": _bare(lab, bare, SAME),
            "word": _bare(lab, bare, WORD),
            "gateway": _frames(lab, gateway, "near"),
            "gateway_to_actor": _frames(lab, gateway, FAR),
        }
    finally:
        for name in (_BARE, GATEWAY, SINK):
            running.drain(_GRACE_S, name)


def _bare_server(_: object) -> BareServer:
    return BareServer()


def _bare(lab: Lab, port: int, method: str) -> Volley:
    return _volley(lab, port, method, message=bytes(lab.sizes.message_bytes), granted=one)


def _frames(lab: Lab, port: int, stream: str) -> Volley:
    """The same frame again and again, which a sink does not mind."""
    starts = [IngestRequest(start=IngestStart(stream=f"{stream}-{call}")) for call in range(lab.sizes.channels)]
    frame = IngestRequest(frame=Frame(seq=1, timestamp_s=1.0, data=_picture(lab.sizes.message_bytes)))
    return _volley(
        lab, port, INGEST.path, message=frame.SerializeToString(), granted=granted,
        openings=tuple(start.SerializeToString() for start in starts),
    )  # fmt: skip


def _volley(lab: Lab, port: int, method: str, **own: Any) -> Volley:
    sizes, address = lab.sizes, f"127.0.0.1:{port}"
    return Volley(
        address=address, method=method, channels=sizes.channels, num_messages=sizes.messages, window=sizes.window, **own
    )


def _picture(num_bytes: int) -> bytes:
    """A JPEG, filled up to so many bytes after its end."""
    file = io.BytesIO()
    Image.new("RGB", (1280, 720)).save(file, "JPEG")
    return file.getvalue().ljust(num_bytes, b"\0")
