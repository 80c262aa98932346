"""The objects of deploy/kubernetes fit one another, and what `cacheflow serve` is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray import __version__
from cacheflow_ray.actors import topology
from cacheflow_ray.service.routes import SERVICES
from tests.deploy.kustomize import Thing, containers, objects, pod_templates, rendered
from tests.deploy.lines import DEPLOY, parse
from tests.deploy.pins import pins

OVERLAYS = ["cpu", "gpu", "archive"]
PART_OF = ("app.kubernetes.io/part-of", "cacheflow")
COMPONENT = "app.kubernetes.io/component"


class Overlay:
    """An overlay, taken apart."""

    def __init__(self, name: str) -> None:
        self.things = rendered(DEPLOY / "kubernetes" / "overlays" / name)
        self.cluster = self.one("RayCluster")["spec"]
        self.groups: dict[str, Thing] = {own["groupName"]: own for own in self.cluster["workerGroupSpecs"]}
        self.pods = [pod for thing in self.things for _, pod in pod_templates(thing)]
        self.pod = self.one("Deployment")["spec"]["template"]
        (self.serve,) = self.pod["spec"]["containers"]
        self.options = parse(self.serve["args"][1:])

    def all(self, kind: str) -> list[Thing]:
        return [own for own in self.things if own["kind"] == kind]

    def one(self, kind: str) -> Thing:
        (thing,) = self.all(kind)
        return thing

    def chosen(self, selector: Thing) -> list[Thing]:
        """Pod templates with the labels of `matchLabels`."""
        wanted = selector["matchLabels"].items()
        return [pod for pod in self.pods if wanted <= pod["metadata"]["labels"].items()]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Overlay:
    return Overlay(request.param)


def test_every_pod_is_confined_and_sized(overlay: Overlay) -> None:
    for pod in overlay.pods:
        assert PART_OF in pod["metadata"]["labels"].items()
        assert pod["spec"]["securityContext"]["runAsNonRoot"] and pod["spec"]["securityContext"]["runAsUser"] == 10001
        for own in containers(pod):
            assert not own["securityContext"]["allowPrivilegeEscalation"]
            assert own["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            for kind in ("requests", "limits"):
                assert own["resources"][kind].keys() >= {"cpu", "memory"}


def test_all_pods_have_one_image_of_this_version(overlay: Overlay) -> None:
    (image,) = {own["image"] for pod in overlay.pods for own in containers(pod)}
    assert image.rpartition(":")[2].partition("-")[0] == __version__


def test_a_store_has_a_group_a_claim_and_a_label(overlay: Overlay) -> None:
    stores = [f"store-{at}" for at in range(overlay.options["stores"])]
    assert [name for name in overlay.groups if name.startswith("store-")] == stores
    claims = {own["metadata"]["name"] for own in overlay.all("PersistentVolumeClaim")}
    for at, name in enumerate(stores):
        group = overlay.groups[name]
        assert group["labels"] == {overlay.options["store_label"]: str(at)}
        (volume,) = group["template"]["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == f"cacheflow-store-{at}" in claims
        (container,) = group["template"]["spec"]["containers"]
        (mount,) = [own for own in container["volumeMounts"] if own["name"] == volume["name"]]
        assert overlay.options["data"].is_relative_to(mount["mountPath"])


def test_every_role_has_nodes(overlay: Overlay) -> None:
    label = overlay.options["role_label"]
    groups = {own["labels"].get(label): name for name, own in overlay.groups.items()}
    assert groups["encoder"] == "encoder" and groups["answerer"] == "answerer"
    env = environment(overlay)
    assert env["RAY_LABELS"] == f"{label}=gateway"
    assert env["RAY_HEAD"].partition(":")[0] == overlay.one("RayCluster")["metadata"]["name"] + "-head-svc"


def test_strangers_have_no_token(overlay: Overlay) -> None:
    """The operator makes a secret of the cluster's name, with this key, and tells all nodes but ours."""
    name = overlay.one("RayCluster")["metadata"]["name"]
    assert overlay.cluster["authOptions"] == {"mode": "token"} == {"mode": environment(overlay)["RAY_AUTH_MODE"]}
    (token,) = [own["valueFrom"] for own in overlay.serve["env"] if own["name"] == "RAY_AUTH_TOKEN"]
    assert token == {"secretKeyRef": {"name": name, "key": "auth_token"}}


def environment(overlay: Overlay) -> dict[str, str]:
    return {own["name"]: own["value"] for own in overlay.serve["env"] if "value" in own}


def test_an_actor_fits_into_its_groups_pod(overlay: Overlay) -> None:
    for role in ("encoder", "answerer"):
        limits = overlay.groups[role]["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert overlay.options[f"cpus_per_{role}"] <= float(limits["cpu"])
        assert overlay.options[f"gpus_per_{role}"] == float(limits.get("nvidia.com/gpu", 0))
        assert overlay.options["threads"] <= float(limits["cpu"])
        assert overlay.options[f"cpus_per_{role}"] + overlay.options[f"gpus_per_{role}"] > 0  # or nothing is asked for


def test_probes_ask_the_health_port_in_the_clear(overlay: Overlay) -> None:
    assert overlay.options["tls_cert"] and overlay.options["health_port"]
    names = {service.full_name for service in SERVICES}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = overlay.serve[kind]["grpc"]
        assert probe["port"] == overlay.options["health_port"]
        assert probe.get("service") in (None, *names)
    startup = overlay.serve["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 2 * topology._START_S


def test_it_has_time_to_drain(overlay: Overlay) -> None:
    within_s = overlay.options["grace"] + topology._STOP_S
    assert overlay.pod["spec"]["terminationGracePeriodSeconds"] > within_s
    assert overlay.one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_the_service_finds_the_pod_and_its_ports(overlay: Overlay) -> None:
    service = overlay.one("Service")["spec"]
    assert overlay.chosen({"matchLabels": service["selector"]}) == [overlay.pod]
    ports = {own["name"]: own["containerPort"] for own in overlay.serve["ports"]}
    assert {own["name"]: own["port"] for own in service["ports"]} == {name: ports[name] for name in ("grpc", "metrics")}
    named = {"grpc": "port", "health": "health_port", "metrics": "metrics_port"}
    assert ports == {name: overlay.options[option] for name, option in named.items()}
    assert overlay.pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])


def test_budgets_count_what_there_is(overlay: Overlay) -> None:
    """Of pods without a controller that Kubernetes knows, only a whole number that stays is understood."""
    budgets = overlay.all("PodDisruptionBudget")
    assert len(budgets) == 4
    for budget in budgets:
        pods = overlay.chosen(budget["spec"]["selector"])
        assert pods and overlay.pod not in pods
        assert isinstance(budget["spec"]["minAvailable"], int) and "maxUnavailable" not in budget["spec"]
        assert budget["spec"]["minAvailable"] <= len(pods)


def test_network_policies_let_in_whom_they_should(overlay: Overlay) -> None:
    policies = {own["metadata"]["name"]: own["spec"] for own in overlay.all("NetworkPolicy")}
    assert overlay.chosen(policies["cacheflow-nodes"]["podSelector"]) == overlay.pods
    (head,) = overlay.chosen(policies["cacheflow-operator"]["podSelector"])
    ports = {own["containerPort"] for own in containers(head)[0]["ports"]}
    assert {own["port"] for own in policies["cacheflow-operator"]["ingress"][0]["ports"]} <= ports
    clients = policies["cacheflow-clients"]
    assert overlay.chosen(clients["podSelector"]) == [overlay.pod]
    allowed = {port["port"] for rule in clients["ingress"] for port in rule["ports"]}
    assert allowed == {overlay.options["port"], overlay.options["metrics_port"]}


def test_secrets_are_named_and_not_in_here(overlay: Overlay) -> None:
    assert not overlay.all("Secret")
    mounted = {own["name"]: own["mountPath"] for own in overlay.serve["volumeMounts"]}
    secrets = {
        own["secret"]["secretName"]: mounted[own["name"]] for own in overlay.pod["spec"]["volumes"] if "secret" in own
    }
    assert overlay.options["keys"] == Path(secrets["cacheflow-keys"]) / "keys.toml"
    assert overlay.options["tls_cert"] == Path(secrets["cacheflow-tls"]) / "tls.crt"
    assert overlay.options["tls_key"] == Path(secrets["cacheflow-tls"]) / "tls.key"


def test_every_volume_is_there_and_every_claim_is_made(overlay: Overlay) -> None:
    claims = {own["metadata"]["name"] for own in overlay.all("PersistentVolumeClaim")}
    for pod in overlay.pods:
        volumes = {own["name"]: own for own in pod["spec"].get("volumes", [])}
        assert {own["name"] for one in containers(pod) for own in one.get("volumeMounts", [])} == volumes.keys()
        named = {
            own["persistentVolumeClaim"]["claimName"] for own in volumes.values() if "persistentVolumeClaim" in own
        }
        assert named <= claims


def test_nodes_of_the_cluster_are_told_what_a_ray_of_our_own_is(overlay: Overlay) -> None:
    (settings,) = [own for own in overlay.all("ConfigMap") if own["metadata"]["name"] == "cacheflow-ray"]
    assert settings["data"] == {f"RAY_{name}": str(value) for name, value in topology._SYSTEM.items()}
    nodes = [overlay.cluster["headGroupSpec"]["template"], overlay.pod]
    nodes += [own["template"] for own in overlay.groups.values()]
    for node in nodes:
        assert node["spec"]["containers"][0]["envFrom"] == [{"configMapRef": {"name": "cacheflow-ray"}}]


def test_ray_is_the_images(overlay: Overlay) -> None:
    assert overlay.cluster["rayVersion"] == str(pins()["ray"])


def test_the_weights_are_fetched_to_where_they_are_read() -> None:
    overlay = Overlay("gpu")
    (job,) = overlay.all("Job")
    fetch = containers(job["spec"]["template"])[0]
    assert f"--local-dir={overlay.options['model']}" in fetch["command"]
    for role in ("encoder", "answerer"):
        (mount,) = overlay.groups[role]["template"]["spec"]["containers"][0]["volumeMounts"]
        assert Path(overlay.options["model"]).is_relative_to(mount["mountPath"]) and mount["readOnly"]


def test_the_archives_job_finds_the_cluster_and_its_files() -> None:
    overlay = Overlay("archive")
    job = overlay.one("RayJob")["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": overlay.one("RayCluster")["metadata"]["name"]}
    index = parse(job["entrypoint"].split()[1:])
    assert {name: index[name] for name in ("data", "stores", "model", "dtype", "namespace")} == {
        name: overlay.options[name] for name in ("data", "stores", "model", "dtype", "namespace")
    }
    indexing: list[Any] = [own["template"] for name, own in overlay.groups.items() if not name.startswith("store-")]
    for pod in (overlay.cluster["headGroupSpec"]["template"], *indexing):
        (mount,) = [own for own in containers(pod)[0]["volumeMounts"] if own["name"] == "archive"]
        assert all(Path(source).is_relative_to(mount["mountPath"]) for source in index["sources"])
    group = overlay.groups["indexer"]
    assert (group["minReplicas"], group["labels"]) == (0, {overlay.options["role_label"]: "indexer"})
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (index["gpus"], index["indexers"] <= group["maxReplicas"]) == (float(limits["nvidia.com/gpu"]), True)
    assert index["cpus"] <= float(limits["cpu"])


def test_a_store_is_copied_from_and_to_its_folder() -> None:
    (job,) = objects(DEPLOY / "kubernetes" / "copy-store.yaml")
    copy, verify = (parse(own["command"][1:]) for own in containers(job["spec"]["template"]))
    serve = Overlay("cpu").options
    folder = (serve["data"] / "store-0001").relative_to("/data")
    assert (copy["data"], copy["target"], verify["data"]) == (
        Path("/from") / folder,
        Path("/to") / folder,
        Path("/to") / folder,
    )
