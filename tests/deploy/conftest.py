"""A service that runs, with something in it and something answered, and what Prometheus would get of it."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cacheflow_ray import Client
from cacheflow_ray.config import AskOptions, ServiceOptions
from cacheflow_ray.media import write_video
from cacheflow_ray.service.gateway import Gateway
from memory_store.errors import StreamNotFound
from tests.actors.running import Running
from tests.oracles import moving_frames

#: As the runbook has it.
PORT = 50051

Metrics = dict[str, set[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where it is, and the labels of every metric it told of, by name."""

    data: Path
    metrics: Metrics


@pytest.fixture(scope="module")
def service(live: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """At 127.0.0.1:50051."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port = free.getsockname()[1]
    live.topology.serve(partial(Gateway, options=ServiceOptions(port=PORT, metrics_port=metrics_port)))
    try:
        _use(tmp_path_factory.mktemp("clips"))
        yield Service(data=live.options.data, metrics=_scraped(metrics_port))
    finally:
        live.topology.drain(5.0)


def _use(folder: Path) -> None:
    """One of everything that is counted: a stream, a question, a call that fails."""
    clip = folder / "lobby.mp4"
    write_video(clip, [frame.image for frame in moving_frames(20)], fps=2.0)
    with Client(f"127.0.0.1:{PORT}") as client:
        client.ingest("lobby", clip)
        _ = client.ask("lobby", "what is there?", options=AskOptions(max_new_tokens=2)).result
        with pytest.raises(StreamNotFound):
            client.stream("nobody")


def _scraped(port: int) -> Metrics:
    """Once the gateway has heard of the answer, which it does every five seconds."""
    deadline = time.monotonic() + 60
    while True:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        found: Metrics = defaultdict(set)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] |= sample.labels.keys()
        if "cacheflow_answerer_stage_seconds_bucket" in found and "cacheflow_encoder_stage_seconds_bucket" in found:
            return dict(found)
        assert time.monotonic() < deadline, sorted(found)
        time.sleep(0.5)
