"""The shape of a cluster file as a RayCluster of KubeRay 1.5.1 or newer, guarded by a token."""

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
SIZES_UNKNOWN = "# The cluster file does not say how large its hosts are: put your CPUs and memory in.\n"


def manifest(file: ClusterFile) -> str:
    """A head and a group of workers for each type of host that the file has, as YAML."""
    types = file.complete["available_node_types"]
    head = file.complete["head_node_type"]
    groups = [_workers(name, node_type) for name, node_type in types.items() if node_type.get("max_workers", 1)]
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": _label(file.name)},
        "spec": {
            "rayVersion": version("ray"),
            "authOptions": {"mode": "token"},
            "enableInTreeAutoscaling": any(group["minReplicas"] < group["maxReplicas"] for group in groups),
            "headGroupSpec": {
                "rayStartParams": {"dashboard-host": "0.0.0.0"},
                "template": _pod("ray-head", types[head]),
            },
            "workerGroupSpecs": groups,
        },
    }
    note = "" if all(node_type.get("resources") for node_type in types.values()) else SIZES_UNKNOWN
    base = _base(has_gpus=any((node_type.get("resources") or {}).get("GPU") for node_type in types.values()))
    words = HEADER.format(name=file.name, image=_image(), base=base, note=note)
    return words + yaml.safe_dump(cluster, sort_keys=False)


def _workers(name: str, node_type: dict[str, Any]) -> dict[str, Any]:
    least = node_type.get("min_workers", 0)
    return {
        "groupName": _label(name),
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": max(least, node_type.get("max_workers", least)),
        "rayStartParams": {},
        "template": _pod("ray-worker", node_type),
    }


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
