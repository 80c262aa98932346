"""The compose files: valid, and of things that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.lines import DEPLOY, ROOT, parse

FOLDER = DEPLOY / "compose"
FILES = ["compose.yaml", "gpu.yaml", "secure.yaml"]
BASE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


def valid(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_valid(name: str) -> None:
    done = valid(FOLDER / name)
    assert done.returncode == 0, done.stdout


def test_a_wrong_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text((FOLDER / "compose.yaml").read_text().replace("shm_size:", "shm_sise:"))
    assert valid(path).returncode == 1


def test_every_file_that_is_mounted_or_built_is_there() -> None:
    service = BASE["services"]["cacheflow"]
    context = (FOLDER / service["build"]["context"]).resolve()
    assert context == ROOT and (context / service["build"]["dockerfile"]).is_file()
    for own in BASE["services"].values():
        for volume in own["volumes"]:
            source = volume.partition(":")[0]
            assert source in BASE["volumes"] or (FOLDER / source).is_file(), volume


@pytest.mark.parametrize("name", FILES)
def test_the_image_is_built_as_it_is_called(name: str) -> None:
    service = yaml.safe_load((FOLDER / name).read_text())["services"]["cacheflow"]
    if "image" in service:
        assert service["image"] == f"cacheflow:{service['build']['args']['TORCH']}"


def test_images_of_others_are_pinned() -> None:
    for own in BASE["services"].values():
        assert re.fullmatch(r"cacheflow:cpu|[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", own["image"])


def test_ports_are_open_to_this_machine_alone_unless_asked_for() -> None:
    for own in BASE["services"].values():
        assert all(port.startswith(("127.0.0.1:", "${CACHEFLOW_BIND:-127.0.0.1}:")) for port in own["ports"])


@pytest.mark.parametrize("name", FILES)
def test_every_file_serves_the_ports_that_the_others_count_on(name: str) -> None:
    options = parse(yaml.safe_load((FOLDER / name).read_text())["services"]["cacheflow"]["command"][1:])
    assert (options["host"], options["port"], options["health_port"]) == ("0.0.0.0", 50051, 50052)
    prometheus = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())
    (scraped,) = prometheus["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"cacheflow:{options['metrics_port']}"]}]


def test_secrets_are_files_that_are_not_in_here() -> None:
    secure = yaml.safe_load((FOLDER / "secure.yaml").read_text())
    command = parse(secure["services"]["cacheflow"]["command"][1:])
    mounted = {f"/run/secrets/{name}" for name in secure["services"]["cacheflow"]["secrets"]}
    assert {str(command[name]) for name in ("keys", "tls_cert", "tls_key")} == mounted
    assert not (FOLDER / "secrets").exists()
