"""Waiting questions: known values of Erlang's formula, and a queue simulated customer by customer."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest

from cacheflow_ray.bench.scale.queueing import Queue, servers_for
from cacheflow_ray.errors import UsageError


def simulated_waits(queue: Queue, customers: int) -> np.ndarray:
    """Seconds that each waits, first come first served, with exponential service."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(1 / queue.rate, customers))
    services = rng.exponential(queue.service_s, customers)
    free = [0.0] * queue.servers
    waits = np.empty(customers)
    for at, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
        begins = max(arrival, heapq.heappop(free))
        heapq.heappush(free, begins + service)
        waits[at] = begins - arrival
    return waits


@pytest.mark.parametrize(
    ("rate", "servers", "share"),
    [(0.7, 1, 0.7), (1.0, 2, 1 / 3), (2.0, 3, 4 / 9)],  # of Erlang's table, service of one second
)
def test_so_many_wait_as_in_erlangs_table(rate: float, servers: int, share: float) -> None:
    assert Queue(rate=rate, service_s=1.0, servers=servers).waiting_share == pytest.approx(share)


def test_one_exponential_server_is_an_m_m_1() -> None:
    queue = Queue(rate=8.0, service_s=0.1, servers=1, cv2=1.0)

    assert queue.wait_s(0.95) == pytest.approx(math.log(0.8 / 0.05) * 0.1 / (1 - 0.8))
    assert queue.latency_s(0.95) == pytest.approx(0.1 + queue.wait_s(0.95))


def test_a_wait_that_few_have_is_none_at_the_median() -> None:
    assert Queue(rate=1.0, service_s=0.1, servers=2).wait_s(0.5) == 0.0


@pytest.mark.parametrize("servers", [1, 4])
def test_waits_are_those_of_a_simulated_queue(servers: int) -> None:
    queue = Queue(rate=0.8 * servers, service_s=1.0, servers=servers)
    waits = simulated_waits(queue, 30_000)

    assert queue.waiting_share == pytest.approx((waits > 0).mean(), rel=0.05)
    assert queue.wait_s(0.95) == pytest.approx(np.quantile(waits, 0.95), rel=0.1)


def test_constant_service_halves_the_wait() -> None:
    varied, constant = (Queue(rate=0.9, service_s=1.0, servers=1, cv2=cv2) for cv2 in (1.0, 0.0))

    assert constant.wait_s(0.95) == pytest.approx(varied.wait_s(0.95) / 2)


def test_more_load_waits_longer_and_more_servers_less() -> None:
    loads = [Queue(rate=rate, service_s=1.0, servers=4).wait_s(0.95) for rate in (2.0, 3.0, 3.9)]
    crews = [Queue(rate=3.0, service_s=1.0, servers=servers).wait_s(0.95) for servers in (4, 5, 6)]

    assert loads == sorted(loads) and loads[0] < loads[-1]
    assert crews == sorted(crews, reverse=True) and crews[0] > crews[-1]


def test_a_queue_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="add answerers"):
        Queue(rate=2.0, service_s=1.0, servers=2)


@pytest.mark.parametrize(("rate", "servers"), [(0.0, 1), (0.7, 1), (0.71, 2), (7.0, 10)])
def test_as_many_servers_as_keep_to_the_utilisation(rate: float, servers: int) -> None:
    assert servers_for(rate, 1.0, 0.7) == servers
