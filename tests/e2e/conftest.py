from __future__ import annotations

import pytest

from cacheflow_ray.cli.app import run
from tests.e2e.commands import Command, Ran


@pytest.fixture
def cacheflow(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `cacheflow ... --json` in this process; what libraries print past Python is captured too."""

    def command(*args: object) -> Ran:
        capfd.readouterr()
        code = run([*map(str, args), "--json"])
        printed = capfd.readouterr()
        return Ran(code=code, out=printed.out, err=printed.err)

    return command
