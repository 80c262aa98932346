"""Every call of `cacheflow` in deploy/ and the runbook is one that the real command line takes."""

from __future__ import annotations

import shlex
from dataclasses import fields

import pytest
from typer import TyperException

from cacheflow_ray.cli.options import ModelChoice, Place
from cacheflow_ray.cli.serve import Listening
from cacheflow_ray.cli.shape import Shape
from cacheflow_ray.config import ServiceLimits
from tests.deploy.kustomize import rendered
from tests.deploy.lines import DEPLOY, calls, parse

CALLS = sorted({(where, shlex.join(line)) for where, line in calls()})


@pytest.mark.parametrize(("where", "line"), CALLS, ids=[f"{where}: cacheflow {line}" for where, line in CALLS])
def test_a_call_parses(where: str, line: str) -> None:
    parse(shlex.split(line))


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "archive"])
def test_what_an_overlay_makes_of_serve_is_what_the_options_take(overlay: str) -> None:
    """Beyond parsing: values are in range, and limits are called so."""
    given = parse(serve_line(overlay))
    shape = Shape(**{own.name: given[own.name] for own in fields(Shape)})
    cluster = shape.options(Place(data=given["data"]), ModelChoice(model=given["model"]))
    service = Listening(**{own.name: given[own.name] for own in fields(Listening)}).options()
    assert (cluster.topology.role_label, cluster.topology.store_label) == ("cacheflow.io/role", "cacheflow.io/store")
    assert service.keys and service.tls and service.limits.max_frame_bytes > ServiceLimits().max_frame_bytes


def serve_line(overlay: str) -> list[str]:
    things = rendered(DEPLOY / "kubernetes" / "overlays" / overlay)
    (serve,) = (one for one in things if one["kind"] == "Deployment")
    (container,) = serve["spec"]["template"]["spec"]["containers"]
    program, *line = container["args"]
    assert program == "cacheflow"
    return list(line)


def test_all_places_are_looked_at() -> None:
    where = {name for name, _ in CALLS}
    assert where >= {"Dockerfile", "compose.yaml", "gpu.yaml", "secure.yaml", "serve.yaml", "rayjob.yaml", "runbook.md"}
    assert len(CALLS) > 25


@pytest.mark.parametrize(
    "line",
    [
        "fly",
        "store fly",
        "serve --sevrer x",
        "serve --stores two",
        "scale --encoders 0",
        "health --service",
        "store verify x",
    ],
)
def test_a_wrong_call_is_found(line: str) -> None:
    with pytest.raises(TyperException):
        parse(line.split())
