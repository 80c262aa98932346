"""Commands run in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cacheflow_ray.cli.app import run


def asked(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """The JSON object of a command that must succeed; it is all there is on stdout."""
    capsys.readouterr()
    code = run([*args, "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)
