"""Everything at once: a client, a gateway, Ray's actors, and the store on disk."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from cacheflow_ray import Client
from cacheflow_ray.actors.api import PayloadKind
from cacheflow_ray.cli.app import run
from cacheflow_ray.config import AskOptions, ServiceOptions
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.media import Frame, write_video
from cacheflow_ray.models import load_model
from cacheflow_ray.service.client import IngestOptions
from cacheflow_ray.service.gateway import Gateway
from memory_store.testing import MemoryStore
from tests.actors.running import FLOAT32, MODEL, Running
from tests.actors.test_cluster import check_same
from tests.oracles import encode, moving_frames, settings

FRAMES = moving_frames(48)
EXACT = IngestOptions(settings=settings(), payload=PayloadKind.RGB)


@pytest.fixture(scope="module")
def server(live: Running) -> Iterator[str]:
    """Its address; it stays the same when its process dies."""
    port = live.topology.serve(partial(Gateway, options=ServiceOptions(port=0)))
    live.topology.drain(5.0)
    live.topology.serve(partial(Gateway, options=ServiceOptions(port=port)))
    yield f"127.0.0.1:{port}"
    live.topology.drain(5.0)


@pytest.fixture(scope="module")
def plain() -> Backend:
    backend = Backend(model=load_model(MODEL, FLOAT32), store=MemoryStore())
    encode(backend, {"plain": FRAMES}, settings(), chunk=8)
    return backend


def test_a_video_over_the_wire_is_the_video_ingested_in_one_process(live: Running, server: str, plain: Backend) -> None:
    with Client(server) as client:
        view = client.ingest("wire", FRAMES, options=EXACT)
        assert (view.position.frames, view.position.complete) == (48, True)
        assert [own.info.stream for own in client.streams()].count("wire") == 1
    check_same(live, "wire", plain)


def test_questions_over_the_wire_come_in_pieces_with_evidence(server: str) -> None:
    with Client(server) as client:
        client.ingest("asked-over", FRAMES, options=EXACT)
        answer = client.ask("asked-over", "What is there?", options=AskOptions(max_new_tokens=6), thumbnails=True)
        pieces = list(answer)
        assert "".join(pieces) == answer.result.text
        assert answer.result.evidence
        again = AskOptions(max_new_tokens=4, session_id=answer.result.session_id)
        assert client.ask("asked-over", "And then?", options=again).result.session_id == again.session_id
        assert client.search("asked-over", "a thing", top_k=2)
        names = {own.name for own in client.status().actors if own.alive}
        assert names >= {"encoder-0", "encoder-1", "answerer-0", "answerer-1", "store-0"}


def test_a_gateway_worn_by_cancelled_calls_gives_way_to_a_fresh_one(live: Running, server: str) -> None:
    options = ServiceOptions(port=_free_port(), renew_after=3, drain_grace_s=5.0)
    live.topology.serve(partial(Gateway, options=options), name="worn")
    try:
        with Client(server) as client:
            client.ingest("worn", FRAMES, options=EXACT)
        with Client(f"127.0.0.1:{options.port}") as client:
            worn = live.pid("worn")
            for _ in range(3):
                answer = client.ask("worn", "What is there?", options=AskOptions(max_new_tokens=64))
                next(iter(answer))
                answer.close()
            assert _next_pid(live, "worn", worn) != worn
            assert client.search("worn", "a thing", top_k=2)
    finally:
        live.topology.drain(5.0, name="worn")


@pytest.mark.parametrize("victim", ["gateway", "encoder-0"])
def test_clients_do_not_notice_a_process_that_dies(live: Running, server: str, plain: Backend, victim: str) -> None:
    def slowly() -> Iterator[Frame]:
        for frame in FRAMES:
            if frame.seq == 24:
                live.kill(victim)
            time.sleep(0.01)
            yield frame

    name = f"survives-{victim}"
    with Client(server) as client:
        view = client.ingest(name, slowly(), options=EXACT)
    assert (view.position.frames, view.position.complete) == (48, True)
    check_same(live, name, plain)


def test_many_clients_at_once(live: Running, server: str, plain: Backend) -> None:
    names = [f"crowd-{at}" for at in range(8)]

    def ingest(name: str) -> None:
        with Client(server) as client:
            client.ingest(name, FRAMES, options=EXACT)

    threads = [threading.Thread(target=ingest, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        check_same(live, name, plain)


def test_the_command_line_speaks_to_the_server(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "clip.mp4"
    write_video(clip, (frame.image for frame in FRAMES), fps=4)

    def told(*line: str) -> dict[str, object]:
        assert run([*line, "--server", server, "--json"]) == 0, capsys.readouterr()
        found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    assert told("ingest", str(clip), "--stream", "by-command", "--fps", "4")
    assert told("ask", "by-command", "What is there?", "--max-new-tokens", "4")["evidence"]
    assert told("streams", "show", "by-command")["frames"] == 48
    assert "by-command" in json.dumps(told("streams", "list"))
    assert "encoder-0" in json.dumps(told("top", "--once"))
    assert told("streams", "delete", "by-command", "--yes")


def _next_pid(live: Running, name: str, pid: int) -> int:
    """The actor's process once it is another than `pid`; that one after a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(RayActorError):  # between the two there is none
            if (now := live.pid(name)) != pid:
                return now
        time.sleep(0.1)
    return pid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
