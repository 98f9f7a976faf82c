"""The shape of a cluster file as a RayCluster of KubeRay 1.5.1 or newer, guarded by a token."""

import json
import re
import sys
from importlib.metadata import version
from typing import Any

import yaml

from rayrnn.cluster.cluster_file import ClusterFile

#: of a pod where the cluster file does not say: hosts over SSH are asked, they are not listed with their size
UNKNOWN = {"CPU": 2, "memory": 8 * 2**30}
HEADER = """\
# {name} as KubeRay runs it: kubectl apply --filename raycluster.yaml
# Needed: the KubeRay operator, 1.5.1 or newer (it makes the token), and an image that has rayrnn. Beside its sources:
#   docker build --tag {image} --build-arg BASE={base} .
# Push it to where your cluster pulls images from, and put its name there in the place of {image} below.
{note}"""
SIZES_UNKNOWN = "# The cluster file does not say how large all of its hosts are: put your CPUs and memory in.\n"


def manifest(file: ClusterFile) -> str:
    """A head and a group of workers for each type of host that the file has, as YAML."""
    types = file.complete["available_node_types"]
    head = file.complete["head_node_type"]
    most = file.complete.get("max_workers", sys.maxsize)
    groups = [_workers(name, node_type, most) for name, node_type in types.items() if node_type.get("max_workers", 1)]
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": _label(file.name)},
        "spec": {
            "rayVersion": version("ray"),
            "authOptions": {"mode": "token"},
            "enableInTreeAutoscaling": any(group["minReplicas"] < group["maxReplicas"] for group in groups),
            "headGroupSpec": {
                "rayStartParams": {"dashboard-host": "0.0.0.0"} | _own_resources(types[head]),
                "template": _pod("ray-head", types[head]),
            },
            "workerGroupSpecs": groups,
        },
    }
    known = all(UNKNOWN.keys() <= (node_type.get("resources") or {}).keys() for node_type in types.values())
    note = "" if known else SIZES_UNKNOWN
    base = _base(has_gpus=any((node_type.get("resources") or {}).get("GPU") for node_type in types.values()))
    words = HEADER.format(name=file.name, image=_image(), base=base, note=note)
    return words + yaml.safe_dump(cluster, sort_keys=False)


def _workers(name: str, node_type: dict[str, Any], most: int) -> dict[str, Any]:
    least = node_type.get("min_workers", 0)
    return {
        "groupName": _label(name),
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": max(least, min(node_type.get("max_workers", least), most)),
        "rayStartParams": _own_resources(node_type),
        "template": _pod("ray-worker", node_type),
    }


def _own_resources(node_type: dict[str, Any]) -> dict[str, str]:
    """What Ray cannot see by itself, as `ray start` takes it: JSON in a shell's quotes."""
    given = node_type.get("resources") or {}
    own = {name: count for name, count in given.items() if name not in (*UNKNOWN, "GPU", "object_store_memory")}
    return {"resources": json.dumps(json.dumps(own))} if own else {}


def _pod(name: str, node_type: dict[str, Any]) -> dict[str, Any]:
    resources = UNKNOWN | (node_type.get("resources") or {})
    limits: dict[str, Any] = {
        "cpu": str(resources["CPU"]),
        "memory": f"{max(1, int(resources['memory']) // 2**20)}Mi",
    }
    if resources.get("GPU"):
        limits["nvidia.com/gpu"] = int(resources["GPU"])
    container = {"name": name, "image": _image(), "resources": {"limits": limits, "requests": dict(limits)}}
    return {"spec": {"containers": [container]}}


def _image() -> str:
    """What the Dockerfile beside the sources makes."""
    return f"rayrnn:{version('rayrnn')}"


def _base(*, has_gpus: bool) -> str:
    """Ray's own image with the Ray and the Python of this process."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return f"rayproject/ray:{version('ray')}-{python}" + ("-gpu" if has_gpus else "")


def _label(name: str) -> str:
    """A name that Kubernetes takes: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:50] or "rayrnn"
