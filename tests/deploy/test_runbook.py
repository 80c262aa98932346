"""The runbook: its program prints what it says, and what it names is there. Its other commands run in `test_live`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.deploy.kustomize import objects, rendered
from tests.deploy.lines import DEPLOY, ROOT
from tests.deploy.runbook import COMMANDS, DOCKER, KUBERNETES, RUN, TEXT, Command

#: Kinds by what the command line may call them.
KINDS = {
    "deployment": "Deployment",
    "raycluster": "RayCluster",
    "rayjob": "RayJob",
    "job": "Job",
    "service": "Service",
}


def shown(command: Command) -> str:
    return shlex.join(command.words)


def test_every_block_is_run_or_looked_through() -> None:
    assert {own.kind for own in COMMANDS} == {"console", "console docker", "console kubernetes"}
    assert TEXT.count("\n$ ") == len(COMMANDS) > 30
    assert {own.words[0] for own in RUN} == {"cacheflow", "python"}
    assert {own.words[0] for own in (*KUBERNETES, *DOCKER)} == {"kubectl", "docker"}


@pytest.mark.parametrize("command", [own for own in RUN if own.words[0] == "python"], ids=shown)
def test_a_program_prints_what_is_said(command: Command) -> None:
    done = subprocess.run(
        [sys.executable, *command.words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    if command.prints:
        assert done.stdout == command.prints
    else:
        assert re.fullmatch(r"\S{43} sha256:[0-9a-f]{64}\n", done.stdout)  # a key, anew each time


@pytest.mark.parametrize("command", [*KUBERNETES, *DOCKER], ids=shown)
def test_what_a_command_names_is_there(command: Command) -> None:
    words = command.words
    paths = [word for word in words if word.startswith("deploy/")]
    assert all((ROOT / path).exists() for path in paths), paths
    assert all((ROOT / words[at + 1] / "kustomization.yaml").exists() for at, word in enumerate(words) if word == "-k")
    things = {(own["kind"], own["metadata"]["name"]) for own in everything()}
    for word in words:
        kind, slash, name = word.partition("/")
        if slash and kind in KINDS:
            assert (KINDS[kind], name) in things, word
    for kind, name in pairwise(words):
        if kind in KINDS and not name.startswith("-"):
            assert (KINDS[kind], name) in things, name


def everything() -> list[dict[str, object]]:
    return rendered(DEPLOY / "kubernetes" / "overlays" / "archive") + objects(DEPLOY / "kubernetes" / "copy-store.yaml")


@pytest.mark.parametrize("command", KUBERNETES, ids=shown)
def test_labels_secrets_and_containers_are_those_of_the_manifests(command: Command) -> None:
    words, text = command.words, str(everything())
    for at, word in enumerate(words):
        if word == "-l":
            name, _, value = words[at + 1].partition("=")
            groups = f"'groupName': '{value}'" if name == "ray.io/group" else f"'{name}': '{value}'"
            assert groups in text
        if word == "-c":
            assert f"'name': '{words[at + 1]}'" in text
        if word == "secret":
            assert f"'secretName': '{words[at + 2]}'" in text


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert links and all((ROOT / "docs" / link).exists() for link in links)


def test_the_formulas_are_those_of_the_program() -> None:
    """The table's constants stand where deploy/capacity.py takes them from, under their names."""
    program = (ROOT / "cacheflow_ray/bench/scale/dimensions.py").read_text()
    for said, computed in (
        ("0.6 · 10¹²", "vision_flop: float = 0.6e12"),
        ("28 B", "TOKEN_BYTES = 28"),
        ("2 layers · 16 vectors", "SUMMARISED_LAYERS, VECTORS_PER_BLOCK = 2, 16"),
        ("sq8 H D + 11", '"sq8": lambda n: n + 11'),
        ("rabitq H D / 8 + 19", '"rabitq": lambda n: n // 8 + 19'),
    ):
        assert said in TEXT and computed in program
