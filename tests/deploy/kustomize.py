"""As much of kustomize as `deploy/` uses, for machines without kubectl; where there is one, a test compares the two.

A field that is not known here is refused, so that nothing goes unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Thing = dict[str, Any]


def rendered(folder: Path) -> list[Thing]:
    """All objects that `kubectl apply -k FOLDER` would apply. Raises: KeyError: a field that is not known here."""
    return _applied(folder, [])


def objects(path: Path) -> list[Thing]:
    """Of a file of one YAML document or several."""
    return [own for own in yaml.safe_load_all(path.read_text()) if own]


def _applied(folder: Path, things: list[Thing]) -> list[Thing]:
    """What is in the folder, laid over `things` that were there before it."""
    own = yaml.safe_load((folder / "kustomization.yaml").read_text())
    options = own.pop("generatorOptions", {})
    assert options in ({}, {"disableNameSuffixHash": True}), options
    assert own.pop("kind") in ("Kustomization", "Component") and own.pop("apiVersion")
    steps: dict[str, Callable[[list[Thing], Any], list[Thing]]] = {
        "resources": lambda all_, names: all_ + [one for name in names for one in _resource(folder / name)],
        "configMapGenerator": lambda all_, maps: all_ + [_config_map(folder, **one) for one in maps],
        "components": lambda all_, names: _in_turn(all_, [folder / name for name in names]),
        "patches": lambda all_, patches: [_patched(folder, one, patches) for one in all_],
        "namespace": lambda all_, name: [_placed(one, name) for one in all_],
        "images": lambda all_, images: [_with_images(one, {own["name"]: own for own in images}) for one in all_],
    }
    order = sorted(own, key=list(steps).index)
    for field in order:
        things = steps[field](things, own[field])
    return things


def _resource(path: Path) -> list[Thing]:
    return _applied(path, []) if path.is_dir() else objects(path)


def _in_turn(things: list[Thing], folders: list[Path]) -> list[Thing]:
    for folder in folders:
        things = _applied(folder, things)
    return things


def _config_map(folder: Path, name: str, files: list[str], options: Thing | None = None) -> Thing:
    labels = (options or {}).get("labels")
    metadata = {"name": name} | ({"labels": labels} if labels else {})
    data = {file: (folder / file).read_text() for file in files}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _patched(folder: Path, thing: Thing, patches: list[Thing]) -> Thing:
    for patch in patches:
        target = patch["target"]
        group, _, version = thing["apiVersion"].rpartition("/")
        if (target["group"], target["version"], target["kind"], target["name"]) == (
            group,
            version,
            thing["kind"],
            thing["metadata"]["name"],
        ):
            text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
            thing = jsonpatch.apply_patch(thing, yaml.safe_load(text))
    return thing


def _placed(thing: Thing, namespace: str) -> Thing:
    if thing["kind"] == "Namespace":
        return thing
    return thing | {"metadata": thing["metadata"] | {"namespace": namespace}}


def _with_images(value: Any, images: dict[str, Thing]) -> Any:
    """Containers at any depth with their image under its new name."""
    if isinstance(value, list):
        return [_with_images(one, images) for one in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _with_images(one, images) for name, one in value.items()}
    new = images.get(str(changed.get("image")))
    return changed | {"image": f"{new['newName']}:{new['newTag']}"} if new else changed


def pod_templates(thing: Thing) -> Iterator[tuple[str, Thing]]:
    """Every pod template of an object, by the name of its group or object."""
    spec = thing.get("spec", {})
    if thing["kind"] == "RayCluster":
        yield "head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield group["groupName"], group["template"]
    for name in ("template", "submitterPodTemplate"):
        if name in spec:
            yield thing["metadata"]["name"], spec[name]


def containers(template: Thing) -> list[Thing]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
