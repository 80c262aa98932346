"""deploy/kubernetes in small, without Kubernetes; run by a test.

    RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32) python -m tests.deploy.placing

Ray nodes on this machine as the CPU overlay has groups (the labels and cores of each), and `cacheflow serve` as its
Deployment starts it: its own node joined by deploy/join-ray, a token for Ray, TLS, keys, health in
the clear. Only the model, the folder
and the ports are others. Prints one JSON object: where each actor was placed, what a client and a probe saw, where the
streams are, and how it ended: told to, and again with the head gone.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster as Nodes

from cacheflow_ray import Client
from cacheflow_ray.service.client import Tls
from memory_store import Store
from tests.actors.running import MODEL
from tests.deploy.lines import DEPLOY
from tests.deploy.test_wiring import Overlay, environment
from tests.oracles import moving_frames
from tests.service.test_gateway_tls import Authority

NAMES = [f"door-{at}" for at in range(6)]


def main() -> None:
    overlay, key = Overlay("cpu"), secrets.token_hex(16)
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
    for group in overlay.groups.values():
        nodes.add_node(num_cpus=cores(group), labels=group["labels"])
    nodes.wait_for_nodes()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ports = dict(zip(("port", "health-port", "metrics-port"), free_ports(3), strict=True))
        (place / "keys.toml").write_text(f'[tenants.admin]\nkeys = ["{key}"]\n')
        cert, cert_key = Authority(place).sign("localhost")
        own = {f"--{name}": str(port) for name, port in ports.items()} | {
            "--data": folder + "/data",
            "--ray-address": nodes.address,
            "--keys": str(place / "keys.toml"),
            "--tls-cert": str(cert),
            "--tls-key": str(cert_key),
        }
        with serving(overlay, nodes.address, own) as (process, said):
            told = {"said": said, "probe": probed(ports["health-port"])}
            with Client(f"localhost:{ports['port']}", api_key=key, tls=Tls(ca=place / "ca.pem")) as client:
                for name in NAMES:
                    client.ingest(name, moving_frames(12))
                told["labels"] = labelled(nodes.address, {own.name: own.node for own in client.status().actors})
                told["frames"] = {view.info.stream: view.position.frames for view in client.streams()}
            process.send_signal(signal.SIGTERM)
            told["ended"] = process.wait(timeout=200)
        told["kept"] = {at.name: kept(at) for at in sorted((place / "data").iterdir())}
        with serving(overlay, nodes.address, own) as (process, _):
            nodes.remove_node(nodes.head_node, allow_graceful=False)
            told["ended_without_a_head"] = process.wait(timeout=200)
            told["probe_without_a_head"] = probed(ports["health-port"])
    nodes.shutdown()
    print(json.dumps(told))


def cores(group: dict[str, Any]) -> int:
    """As KubeRay counts them."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    return int(group["rayStartParams"].get("num-cpus", limits["cpu"]))


@contextmanager
def serving(overlay: Overlay, address: str, own: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """The Deployment's container: its command, less tini, with some options of our own."""
    tini, _, script = overlay.serve["command"]
    assert (tini, script) == ("tini", "join-ray")
    program, *line = overlay.serve["args"]
    line = [word for word in line if word.partition("=")[0] not in own]
    line += [f"{name}={value}" for name, value in own.items()]
    line += [f"--model={MODEL}", "--device=cpu", "--dtype=float32", "--json"]
    env = environment(overlay) | {"RAY_HEAD": address}
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with subprocess.Popen(
        [DEPLOY / "join-ray", program, *line], env=os.environ | env | {"PATH": paths}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            said = next(text for text in process.stdout if text.startswith("{"))
            yield process, json.loads(said)
        finally:
            process.kill()


def labelled(address: str, placed: dict[str, str]) -> dict[str, dict[str, str]]:
    """The labels of ours that each actor's node has."""
    ray.init(address=address, log_to_driver=False)
    labels = {node["NodeID"]: node["Labels"] for node in ray.nodes()}
    ray.shutdown()
    ours = {name: labels.get(node, {}) for name, node in placed.items()}
    return {name: {key: value for key, value in own.items() if "cacheflow" in key} for name, own in ours.items()}


def probed(port: int) -> int:
    """Without key or certificate, as the kubelet does."""
    command = [sys.executable, "-m", "cacheflow_ray.cli", "health", "--server", f"127.0.0.1:{port}"]
    return subprocess.run(command, timeout=60, check=False, capture_output=True).returncode


def kept(folder: Path) -> list[str]:
    with Store.open(folder, read_only=True) as store:
        return [record.stream_id for record in store.list_streams()]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    main()
