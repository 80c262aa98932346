"""One Ray cluster for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cacheflow_ray.actors import topology
from tests.actors.running import Running, running


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two encoders, two answerers, one store."""
    with running(tmp_path_factory.mktemp("cluster") / "data", encoders=2, answerers=2) as started:
        yield started
    topology.disconnect()
