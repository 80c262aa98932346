"""The client without asyncio: from threads, inside a running loop, and around its own end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

import cacheflow_ray
from cacheflow_ray.actors.api import NewStream
from cacheflow_ray.engine import IngestProgress
from cacheflow_ray.errors import ClusterUnavailable, ServiceError
from cacheflow_ray.service.client import AsyncClient, Client, Tls
from memory_store.errors import StreamNotFound
from tests.service.mortal import MortalCluster, served, shots


def test_it_does_what_the_other_one_does() -> None:
    public = {name for name in vars(AsyncClient) if not name.startswith("_")}
    assert public <= set(vars(Client)) and Client.ingest.__doc__ == AsyncClient.ingest.__doc__


def test_it_is_used_without_asyncio() -> None:
    cluster, told = MortalCluster(die_at=deque([5]), pace_s=0.001), list[IngestProgress]()
    with served(cluster) as address, Client(address) as client:
        client.create_stream(NewStream(stream_id="b"))
        view = client.ingest("a", shots(10), progress=told.append)
        assert view.info.complete and [own.info.stream for own in client.streams()] == ["a", "b"]
        assert cluster.seqs("a") == list(range(10)) and told[-1].frames == 10
        client.delete_stream("b")
        with pytest.raises(StreamNotFound):
            client.stream("b")
        assert client.scale(answerers=2) == (1, 2) and client.health() and client.status().actors


def test_an_answer_is_iterated_then_read_or_read_at_once() -> None:
    with served(MortalCluster()) as address, Client(address) as client:
        client.create_stream(NewStream(stream_id="a"))
        answer = client.ask("a", "what?")
        assert list(answer) == ["two ", "red ", "cars"] and answer.result.text == "two red cars"
        assert (answer.stream, answer.moments[0].stream_id) == ("a", "a")
        assert client.ask("a", "what?").result.text == "two red cars"


def test_an_answer_closed_early_is_ended_at_the_service() -> None:
    cluster = MortalCluster(endless=True, pace_s=0.001)
    with served(cluster) as address, Client(address) as client:
        client.create_stream(NewStream(stream_id="a"))
        with closing(client.ask("a", "what?")) as answer:
            assert next(iter(answer)) == "two "
        for _ in range(500):
            if not cluster.num_answering:
                return
            threading.Event().wait(0.01)
    pytest.fail("the service went on")


def test_many_threads_share_one() -> None:
    cluster = MortalCluster(pace_s=0.001)
    with served(cluster) as address, Client(address) as client, ThreadPoolExecutor(8) as threads:
        views = list(threads.map(lambda name: client.ingest(name, shots(20)), "abcdefgh"))
        answers = list(threads.map(lambda name: client.ask(name, "what?").result.text, "abcdefgh"))

    assert [view.info.stream for view in views] == list("abcdefgh") and set(answers) == {"two red cars"}
    assert all(cluster.seqs(name) == list(range(20)) for name in "abcdefgh")


def test_it_works_where_a_loop_is_running() -> None:
    async def main(address: str) -> str:
        with Client(address) as client:
            client.create_stream(NewStream(stream_id="a"))
            return client.ask("a", "what?").result.text

    with served(MortalCluster()) as address:
        assert asyncio.run(main(address)) == "two red cars"


def test_closed_it_says_so_and_its_thread_is_gone() -> None:
    with served(MortalCluster()) as address:
        client = Client(address)
        client.close()
        client.close()
        with pytest.raises(ServiceError, match="after it was closed"):
            client.streams()
    assert "cacheflow-client" not in {thread.name for thread in threading.enumerate()}


def test_closed_meanwhile_it_lets_go_of_whoever_waits() -> None:
    cluster = MortalCluster(delay_s=20.0)
    with served(cluster) as address, ThreadPoolExecutor(1) as threads:
        client = Client(address)
        waiting = threads.submit(client.streams)
        while not cluster.num_lists:
            threading.Event().wait(0.01)
        client.close()
        with pytest.raises(ServiceError, match="closed meanwhile"):
            waiting.result(10)


def test_an_interrupt_of_whoever_waits_ends_what_it_waits_for() -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def send_signal() -> None:
        while not cluster.seqs("a"):
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    cluster, earlier = MortalCluster(pace_s=0.01), signal.signal(signal.SIGUSR1, interrupt)
    try:
        with served(cluster) as address, Client(address) as client, ThreadPoolExecutor(1) as threads:
            threads.submit(send_signal)
            with pytest.raises(KeyboardInterrupt):
                client.ingest("a", shots(100_000))
            while not cluster.sessions[0].num_closed:
                threading.Event().wait(0.01)
            assert client.health()
    finally:
        signal.signal(signal.SIGUSR1, earlier)


def test_used_in_what_it_calls_back_it_refuses_instead_of_waiting_for_itself() -> None:
    refused = pytest.raises(ServiceError, match="in what it calls back")
    with served(MortalCluster()) as address, Client(address) as client, refused:
        client.ingest("a", shots(3), progress=lambda _: client.health() and None)


def test_a_connection_that_cannot_be_made_leaves_no_thread() -> None:
    with pytest.raises(FileNotFoundError):
        Client("127.0.0.1:1", tls=Tls(ca=Path("nowhere.pem")))
    assert "cacheflow-client" not in {thread.name for thread in threading.enumerate()}


def test_nobody_at_the_address() -> None:
    with Client("127.0.0.1:1", timeout_s=0.3) as client, pytest.raises(ClusterUnavailable):
        client.streams()


def test_a_program_that_never_closes_it_ends_all_the_same() -> None:
    code = """
import sys
from cacheflow_ray import Client
client = Client(sys.argv[1])
print(len(client.streams()))
"""
    with served(MortalCluster()) as address:
        done = subprocess.run(
            [sys.executable, "-c", code, address], capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_the_package_names_both_and_imports_neither() -> None:
    assert cacheflow_ray.Client is Client and cacheflow_ray.AsyncClient is AsyncClient
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        _ = cacheflow_ray.Server  # type: ignore[attr-defined]
    code = "import sys, cacheflow_ray; sys.exit('grpc' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
