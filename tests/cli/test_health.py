"""`cacheflow health`: what it says, and above all what it exits with."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from cacheflow_ray.cli.app import run
from cacheflow_ray.config import ServiceOptions
from cacheflow_ray.service.gateway import Gateway
from tests.service.cluster_double import MemoryCluster

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def gateway() -> Iterator[tuple[Gateway, asyncio.AbstractEventLoop]]:
    """One that serves in a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = Gateway(MemoryCluster(), ServiceOptions(port=0))
    asyncio.run_coroutine_threadsafe(made.start(), loop).result(30)
    yield made, loop
    asyncio.run_coroutine_threadsafe(made.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_a_service_that_takes_work(gateway: tuple[Gateway, asyncio.AbstractEventLoop], capsys: Capture) -> None:
    address = f"127.0.0.1:{gateway[0].port}"
    assert run(["health", "--server", address]) == 0
    assert capsys.readouterr().out == f"{address}: serving\n"
    part = "cacheflow.v1.IngestService"
    assert run(["health", "--server", address, "--service", part, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"address": address, "service": part, "serving": True}


def test_a_service_that_closes(gateway: tuple[Gateway, asyncio.AbstractEventLoop], capsys: Capture) -> None:
    closing, loop = gateway
    asyncio.run_coroutine_threadsafe(closing._health.enter_graceful_shutdown(), loop).result(30)
    assert run(["health", "--server", f"127.0.0.1:{closing.port}", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["serving"]


def test_a_part_that_there_is_not(gateway: tuple[Gateway, asyncio.AbstractEventLoop], capsys: Capture) -> None:
    assert run(["health", "--server", f"127.0.0.1:{gateway[0].port}", "--service", "memory"]) == 2
    assert "has no part 'memory'" in capsys.readouterr().err


def test_nobody_there(capsys: Capture) -> None:
    assert run(["health", "--server", "127.0.0.1:1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
