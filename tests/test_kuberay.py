"""A cluster file's shape for Kubernetes: what `rayrnn up FILE --kubernetes` prints."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import ray
import yaml

from tests.test_cli import run_rayrnn
from tests.test_cluster_file import SHIPPED

CLOUD = """
cluster_name: My_Cluster
max_workers: 6
provider: {type: aws, region: us-west-2, availability_zone: us-west-2a}
auth: {ssh_user: ubuntu}
available_node_types:
  head: {node_config: {InstanceType: m5.large}, resources: {CPU: 2, memory: 4294967296}, min_workers: 0, max_workers: 0}
  gpus: {node_config: {InstanceType: g5.xlarge}, resources: {CPU: 4, GPU: 1}, min_workers: 1, max_workers: 6}
head_node_type: head
"""


def test_hosts_over_ssh_become_a_head_and_as_many_workers(tmp_path: Path) -> None:
    ended = run_rayrnn("up", str(SHIPPED), "--kubernetes", home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "does not say how large all of its hosts are" in ended.stdout
    image, python = f"rayrnn:{version('rayrnn')}", f"py{sys.version_info.major}{sys.version_info.minor}"
    base = f"rayproject/ray:{ray.__version__}-{python}"
    assert f"#   docker build --tag {image} --build-arg BASE={base} .\n" in ended.stdout
    cluster = yaml.safe_load(ended.stdout)
    assert (cluster["kind"], cluster["metadata"]["name"]) == ("RayCluster", "rayrnn")
    assert cluster["spec"]["rayVersion"] == ray.__version__
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    (workers,) = cluster["spec"]["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (2, 2, 2)


def test_a_clouds_types_of_hosts_become_groups_of_their_size(tmp_path: Path) -> None:
    path = tmp_path / "cloud.yaml"
    path.write_text(CLOUD)
    ended = run_rayrnn("up", str(path), "--kubernetes", home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    cluster = yaml.safe_load(ended.stdout)
    assert cluster["metadata"]["name"] == "my-cluster"
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    (head,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["resources"]["limits"] == {"cpu": "2", "memory": "4096Mi"}
    (workers,) = cluster["spec"]["workerGroupSpecs"]
    assert (workers["groupName"], workers["minReplicas"], workers["maxReplicas"]) == ("gpus", 1, 6)
    (worker,) = workers["template"]["spec"]["containers"]
    assert worker["image"] == head["image"] == f"rayrnn:{version('rayrnn')}"
    assert "-gpu ." in ended.stdout, "the base of hosts with GPUs"
    assert worker["resources"]["limits"] == {"cpu": "4", "memory": "8192Mi", "nvidia.com/gpu": 1}


def test_what_a_cloud_says_beside_cpus_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "cloud.yaml"
    special = CLOUD.replace("max_workers: 6\n", "max_workers: 4\n", 1).replace("GPU: 1", "GPU: 1, special: 3")
    path.write_text(special.replace(", memory: 8589934592", ""))
    ended = run_rayrnn("up", str(path), "--kubernetes", home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "does not say how large all of its hosts are" in ended.stdout, "the memory of one type is not there"
    (workers,) = yaml.safe_load(ended.stdout)["spec"]["workerGroupSpecs"]
    assert workers["maxReplicas"] == 4, "of all types together"
    assert json.loads(json.loads(workers["rayStartParams"]["resources"])) == {"special": 3}
