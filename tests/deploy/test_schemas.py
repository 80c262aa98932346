"""Every object of deploy/kubernetes is one that Kubernetes, KubeRay and Ray's autoscaler understand."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from tests.deploy.kuberay import SCHEMAS, refusals
from tests.deploy.kustomize import objects, pod_templates, rendered
from tests.deploy.lines import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
FOLDERS = [KUBERNETES / "base", *sorted((KUBERNETES / "overlays").iterdir()), DEPLOY / "monitoring"]
OVERLAYS = FOLDERS[1:-1]


def everything() -> Iterator[tuple[str, dict[str, Any]]]:
    for folder in FOLDERS:
        for thing in rendered(folder):
            yield f"{folder.name}: {thing['kind']} {thing['metadata']['name']}", thing
    for thing in objects(KUBERNETES / "copy-store.yaml"):
        yield f"copy-store.yaml: {thing['kind']} {thing['metadata']['name']}", thing


THINGS = dict(everything())


@pytest.mark.parametrize("name", THINGS)
def test_an_object_is_valid(name: str) -> None:
    check(THINGS[name])


def check(thing: dict[str, Any]) -> None:
    if thing["kind"] in SCHEMAS:
        jsonschema.validate(thing, SCHEMAS[thing["kind"]])
    else:
        kubernetes_validate.validate(thing, kubernetes_validate.latest_version(), strict=True)
    for group, template in pod_templates(thing):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": group}, "template": template}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_what_is_wrong_is_found() -> None:
    cluster = THINGS["gpu: RayCluster cacheflow"]
    for path, value in (
        (("spec", "workerGroupSpecs", 0, "maxReplica"), 3),
        (("spec", "workerGroupSpecs", 0, "rayStartParams", "num-cpus"), 0),
        (("spec", "autoscalerOptions", "version"), "v3"),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "imagee"), "x"),
        (("spec", "workerGroupSpecs", 2, "template", "spec", "volumes", 0, "persistentVolumeClaim"), {"claim": "x"}),
    ):
        wrong: Any = deepcopy(cluster)
        place: Any = wrong
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            check(wrong)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_rays_autoscaler_reads_the_cluster(overlay: Path) -> None:
    """The code that runs in the head's pod, over the object the operator would give it; it validates what it makes."""
    cluster = THINGS[f"{overlay.name}: RayCluster cacheflow"]
    assert refusals(cluster) == []
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert (types["encoder"]["min_workers"], types["encoder"]["max_workers"]) == (1, 8)
    assert types["encoder"]["labels"] == {"cacheflow.io/role": "encoder"}
    stores = [types[f"store-{at}"] for at in range(2)]
    assert [own["labels"] for own in stores] == [{"cacheflow.io/store": str(at)} for at in range(2)]
    assert all((own["min_workers"], own["max_workers"], own["resources"]["CPU"]) == (1, 1, 0) for own in stores)
    gpus = 0 if overlay.name == "cpu" else 1
    assert types["encoder"]["resources"].get("GPU", 0) == types["answerer"]["resources"].get("GPU", 0) == gpus


def test_what_the_operator_would_refuse_is_found() -> None:
    cluster = deepcopy(THINGS["cpu: RayCluster cacheflow"])
    first, second = cluster["spec"]["workerGroupSpecs"][:2]
    second["groupName"] = first["groupName"]
    first["template"]["spec"]["restartPolicy"] = "Always"
    first["rayStartParams"] = {"labels": "a=b"}
    first["minReplicas"] = 9
    assert len(refusals(cluster)) == 4


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_kubectl_makes_the_same_of_it(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here: only our own rendering was checked")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=True)
    assert ordered(yaml.safe_load_all(done.stdout)) == ordered(rendered(folder))


def ordered(things: Any) -> list[dict[str, Any]]:
    return sorted(things, key=lambda own: (own["kind"], own["metadata"]["name"]))
