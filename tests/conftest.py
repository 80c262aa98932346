"""What every test needs before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.actors.running import Running

# Two test runs (or the processes a test starts) share few cores: more threads than cores only slow them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test reaches for the network: every model is built from a configuration.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# As the command line sets it before the library is imported, which tests import first.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A Ray cluster with two encoders, two answerers and one store, for all tests that need one."""
    from cacheflow_ray.actors import topology
    from tests.actors.running import running

    with running(tmp_path_factory.mktemp("cluster") / "data", encoders=2, answerers=2) as started:
        yield started
    topology.disconnect()


# How long an example takes depends on what else the machine does.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the cluster come last: while it runs, it takes from the cores of all others."""
    items.sort(key=lambda item: "live" in getattr(item, "fixturenames", ()))


_ORACLES = pytest.StashKey[dict[str, dict[str, float]]]()


@pytest.fixture
def oracle(request: pytest.FixtureRequest) -> Callable[[str, str, float], None]:
    """Record a measured difference for the table of oracles x families at the end of the run."""

    def record(family: str, name: str, measured: float) -> None:
        table = request.config.stash.setdefault(_ORACLES, {})
        row = table.setdefault(name, {})
        row[family] = max(row.get(family, 0.0), measured)

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash.get(_ORACLES, {})
    if not table:
        return
    families = sorted({family for row in table.values() for family in row})
    terminalreporter.section("oracles: largest difference measured")
    terminalreporter.write_line(f"{'':28}" + "".join(f"{family:>24}" for family in families))
    for name in sorted(table):
        cells = "".join(
            f"{table[name][family]:>24.1e}" if family in table[name] else f"{'':>24}" for family in families
        )
        terminalreporter.write_line(f"{name:28}{cells}")
