"""The image: what its Dockerfile says holds together. Nothing is built here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.lines import DEPLOY, ROOT, parse
from tests.deploy.pins import pins

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint has no wheel for this machine")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def copied() -> list[str]:
    """Sources that are copied from the repository."""
    lines = re.findall(r"^COPY (?!.*--from)(.*)$", DOCKERFILE, flags=re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1] if not word.startswith("--")]


def test_what_is_copied_is_there_and_nothing_else_is_sent() -> None:
    ignored = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]
    assert ignored[0] == "*" and ignored[-1] == "**/__pycache__"
    assert sorted(line.removeprefix("!") for line in ignored[1:-1]) == sorted(copied())
    assert all((ROOT / name).exists() for name in copied())
    assert PROJECT["license-files"] == ["LICENSE"] and "readme" not in PROJECT  # or the wheel would want more


def test_stages_follow_one_another() -> None:
    stages = ["base"]
    for source, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]:
        assert source.replace("${TORCH}", "cpu") in stages
        stages.append(name)
    assert {"dependencies-cpu", "dependencies-cuda"} <= set(stages) and stages[-1] == "service"
    for source in re.findall(r"--from=(\w+)|,from=(\w+)", DOCKERFILE):
        assert "".join(source) in stages


def test_it_runs_as_nobody_and_tells_of_its_health_where_it_serves_it() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, flags=re.MULTILINE)
    health, serve = (json.loads(line) for line in re.findall(r"CMD (\[.*\])", last))
    served = parse(serve[1:])
    assert parse(health[1:])["server"] == f"127.0.0.1:{served['health_port']}"
    exposed = re.findall(r"^EXPOSE (.*)$", last, flags=re.MULTILINE)[0].split()
    assert {int(port) for port in exposed} == {served["port"], served["health_port"], served["metrics_port"]}


def test_pins_are_such_as_the_project_takes() -> None:
    (line,) = re.findall(
        r"^RUN python dependencies.py pyproject.toml (.*) > requirements.txt$", DOCKERFILE, flags=re.MULTILINE
    )
    extras = line.split()
    script = [sys.executable, DEPLOY / "dependencies.py", ROOT / "pyproject.toml", *extras]
    listed = subprocess.run(script, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    wanted = [Requirement(line) for line in listed]
    optional = [own for name in extras for own in PROJECT["optional-dependencies"][name]]
    assert "cluster" in extras and len(wanted) == len(PROJECT["dependencies"]) + len(optional)
    versions = {canonicalize_name(name): version for name, version in pins().items()}
    for need in wanted:
        assert versions[canonicalize_name(need.name)] in need.specifier, need


def test_join_ray_is_a_script_that_can_be_run() -> None:
    script = DEPLOY / "join-ray"
    assert script.stat().st_mode & 0o111
    subprocess.run([shutil.which("sh") or "/bin/sh", "-n", script], timeout=60, check=True)
    assert "COPY --chmod=755 deploy/join-ray /usr/local/bin/join-ray" in DOCKERFILE
