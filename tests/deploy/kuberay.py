"""What KubeRay's operator takes, as far as no package tells: the fields of its objects, from its API reference (1.6).

Pod templates inside are checked by Kubernetes' own schema, and groups by Ray's own autoscaler.
"""

from __future__ import annotations

import re
from typing import Any

Thing = dict[str, Any]

_SECTION = {"type": "object"}
_WORDS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}


def _closed(required: tuple[str, ...] = (), **fields: Thing) -> Thing:
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


_AUTOSCALER = _closed(
    resources=_SECTION,
    image={"type": "string"},
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    securityContext=_SECTION,
    idleTimeoutSeconds=_COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    env={"type": "array"},
    envFrom={"type": "array"},
    volumeMounts={"type": "array"},
)
_HEAD = _closed(
    ("template", "rayStartParams"),
    template=_SECTION,
    headService=_SECTION,
    enableIngress={"type": "boolean"},
    resources=_WORDS,
    labels=_WORDS,
    rayStartParams=_WORDS,
    serviceType={"type": "string"},
)
_GROUP = _closed(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    suspend={"type": "boolean"},
    groupName={"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    idleTimeoutSeconds=_COUNT,
    resources=_WORDS,
    labels=_WORDS,
    rayStartParams=_WORDS,
    template=_SECTION,
    scaleStrategy=_SECTION,
    numOfHosts=_COUNT,
)
_CLUSTER = _closed(
    ("headGroupSpec",),
    authOptions=_closed(mode={"enum": ["disabled", "token"]}),
    suspend={"type": "boolean"},
    managedBy={"type": "string"},
    autoscalerOptions=_AUTOSCALER,
    headServiceAnnotations=_WORDS,
    enableInTreeAutoscaling={"type": "boolean"},
    gcsFaultToleranceOptions=_SECTION,
    headGroupSpec=_HEAD,
    rayVersion={"type": "string"},
    workerGroupSpecs={"type": "array", "items": _GROUP},
    upgradeStrategy=_SECTION,
)
_JOB = _closed(
    ("entrypoint",),
    activeDeadlineSeconds=_COUNT,
    backoffLimit=_COUNT,
    rayClusterSpec=_CLUSTER,
    submitterPodTemplate=_SECTION,
    metadata=_WORDS,
    clusterSelector=_WORDS,
    submitterConfig=_SECTION,
    managedBy={"type": "string"},
    deletionStrategy=_SECTION,
    entrypoint={"type": "string"},
    runtimeEnvYAML={"type": "string"},
    jobId={"type": "string"},
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypointResources={"type": "string"},
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    ttlSecondsAfterFinished=_COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    suspend={"type": "boolean"},
)

SCHEMAS = {
    kind: _closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_SECTION,
        spec=spec,
    )
    for kind, spec in (("RayCluster", _CLUSTER), ("RayJob", _JOB))
}


def refusals(cluster: Thing) -> list[str]:
    """What the operator would refuse of a RayCluster beyond its schema, and why."""
    spec, found = cluster["spec"], []
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", cluster["metadata"]["name"]):
        found.append("the name is no DNS label")
    names = [group["groupName"] for group in spec["workerGroupSpecs"]]
    if len(set(names)) < len(names):
        found.append("two groups have one name")
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        if "labels" in group["rayStartParams"]:
            found.append("labels stand beside rayStartParams, not in them")
        if group.get("minReplicas", 0) > group.get("maxReplicas", 0):
            found.append("minReplicas is above maxReplicas")
        restart = group["template"]["spec"].get("restartPolicy", "Never")
        if spec.get("autoscalerOptions", {}).get("version") == "v2" and restart != "Never":
            found.append("version 2 of the autoscaler wants restartPolicy Never")
    return found
