"""The Deployment's own command on nodes with the manifests' labels: everything lands where it should."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys

import pytest

from tests.deploy.lines import ROOT
from tests.deploy.placing import NAMES


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: it makes certificates")
@pytest.mark.timeout(900)
def test_actors_live_on_the_nodes_of_their_role_and_end_with_them() -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # as the operator has it on every node
    command = [sys.executable, "-m", "tests.deploy.placing"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | token, stdout=subprocess.PIPE, text=True, timeout=800, check=True
    )
    told = json.loads(done.stdout)
    role, store = "cacheflow.io/role", "cacheflow.io/store"
    assert told["labels"] == {
        "encoder-0": {role: "encoder"},
        "answerer-0": {role: "answerer"},
        "store-0": {store: "0"},
        "store-1": {store: "1"},
        "gateway": {role: "gateway"},
        "director": {role: "gateway"},
    }
    assert (told["probe"], told["ended"]) == (0, 0)
    assert told["frames"] == dict.fromkeys(NAMES, 12)
    assert told["kept"].keys() == {"store-0000", "store-0001"} and all(told["kept"].values())
    assert sorted(name for own in told["kept"].values() for name in own) == [f"admin:{name}" for name in NAMES]
    assert told["ended_without_a_head"] != 0 and told["probe_without_a_head"] == 1
