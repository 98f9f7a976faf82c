"""What rayrnn relies on in Ray's inside, one test a private name: moving to the next Ray is making these pass."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
import ray
import ray.job_submission
from ray._private import ray_constants
from ray._private import services as ray_services
from ray._private import worker as ray_worker
from ray._private.parameter import RayParams
from ray.autoscaler._private import constants as autoscaler_constants
from ray.autoscaler.tags import STATUS_UNINITIALIZED, STATUS_WAITING_FOR_SSH
from ray.core.generated.gcs_service_pb2 import CheckAliveReply, CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import (
    NodeInfoGcsServiceServicer,
    add_NodeInfoGcsServiceServicer_to_server,
)
from ray.dashboard.modules.job.job_manager import JobManager
from ray.exceptions import RayError

from rayrnn.cluster import ray_internals
from rayrnn.cluster.ray_internals import HeadUnavailable, NoAnswer
from tests.repeating import again_and_again
from tests.test_cli import run_rayrnn

LOCAL = {
    "cluster_name": "small",
    "provider": {"type": "local", "head_ip": "192.0.2.1", "worker_ips": ["192.0.2.2"]},
    "auth": {"ssh_user": "ubuntu"},
}


@pytest.fixture
def address(ray_cluster: None) -> str:
    """Of a head that this process has joined."""
    return str(ray.get_runtime_context().gcs_address)


@ray.remote(num_cpus=1)
class Holder:
    """Holds one CPU."""

    def ready(self) -> bool:
        return True


@pytest.fixture
def holder(ray_cluster: None) -> Iterator[None]:
    holding = Holder.remote()
    ray.get(holding.ready.remote())
    yield
    ray.kill(holding)


def node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


# The head, asked from outside


def test_the_head_says_its_version_to_who_has_not_joined_it(address: str) -> None:
    assert ray_internals.version_of_head(address, timeout=10) == ray.__version__


def test_where_nobody_answers_the_reason_is_what_the_system_said() -> None:
    with pytest.raises(HeadUnavailable, match=r"^Connection refused$") as caught:
        ray_internals.version_of_head("127.0.0.1:1", timeout=5)
    assert caught.value.why is NoAnswer.SILENT


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_no_web_proxy_stands_between_this_process_and_the_head(
    address: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ray_internals.version_of_head(address, timeout=10) == ray.__version__


@pytest.fixture
def server() -> Iterator[grpc.Server]:
    """Speaks gRPC, and knows nothing of Ray."""
    server = grpc.server(ThreadPoolExecutor(1))
    yield server
    server.stop(None)


def started(server: grpc.Server) -> str:
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return f"127.0.0.1:{port}"


class OldRay(NodeInfoGcsServiceServicer):
    """Answers as a Ray of last year would."""

    def CheckAlive(self, request: CheckAliveRequest, context: grpc.ServicerContext) -> CheckAliveReply:  # noqa: N802
        return CheckAliveReply(ray_version="2.40.0")


def test_another_version_of_ray_is_refused(server: grpc.Server, tmp_path: Path) -> None:
    add_NodeInfoGcsServiceServicer_to_server(OldRay(), server)
    ended = run_rayrnn("status", "--address", started(server), home=tmp_path)
    assert ended.returncode == 4
    assert f"runs Ray 2.40.0, here is Ray {ray.__version__}" in ended.stderr


def test_something_that_is_no_ray_is_refused(server: grpc.Server, tmp_path: Path) -> None:
    ended = run_rayrnn("status", "--address", started(server), home=tmp_path)
    assert ended.returncode == 4
    assert "is not the Ray" in ended.stderr


class Guarded(NodeInfoGcsServiceServicer):
    """Takes nobody's token."""

    def CheckAlive(self, request: CheckAliveRequest, context: grpc.ServicerContext) -> CheckAliveReply:  # noqa: N802
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")


def test_a_token_that_is_not_taken_is_told_apart(server: grpc.Server) -> None:
    add_NodeInfoGcsServiceServicer_to_server(Guarded(), server)
    with pytest.raises(HeadUnavailable) as caught:
        ray_internals.version_of_head(started(server), timeout=5)
    assert caught.value.why is NoAnswer.TOKEN_REFUSED


def test_a_running_head_is_found_by_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    assert ray_internals.find_running_head() == "192.0.2.1:6379"


def test_the_heads_tables_name_jobs_actors_and_nodes(address: str, holder: None) -> None:
    tables = ray_internals.read_tables(address)
    job = next(row for row in tables.jobs if row["JobID"] == ray.get_runtime_context().get_job_id())
    assert not job["IsDead"]
    assert int(job["DriverPid"]) == psutil.Process().pid
    assert {"Entrypoint", "StartTime"} <= job.keys()
    alive = [row["ActorClassName"] for row in tables.actors if row["State"] == "ALIVE" and row["JobID"] == job["JobID"]]
    assert "Holder" in alive
    (node,) = tables.nodes
    assert node["NodeID"] == node_id()
    assert {"NodeManagerAddress", "NodeManagerHostname"} <= node.keys()


def test_what_a_node_has_and_what_is_taken_of_it(address: str, holder: None) -> None:
    there = ray_internals.resources_in_use(address)[node_id()]
    assert there.total["CPU"] == 4
    assert {"memory", "object_store_memory"} <= there.total.keys()
    assert there.used.keys() <= there.total.keys()


# The head's store, and the cluster that this process has joined


def test_a_value_in_the_heads_store_is_replaced_read_and_removed(address: str) -> None:
    ray_internals.put_in_head_store("a test", "key", b"one")
    ray_internals.put_in_head_store("a test", "key", b"two")
    assert ray_internals.read_head_store(address, "a test", ["other", "key"]) == [b"two"]
    ray_internals.remove_from_head_store("a test", "key")
    assert ray_internals.read_head_store(address, "a test", ["key"]) == []
    assert ray_internals.get_from_head_store("a test", "key") is None
    ray_internals.leave_in_head_store(address, "a test", {"key": b"from outside"})
    assert ray_internals.get_from_head_store("a test", "key") == b"from outside"
    ray_internals.remove_from_head_store("a test", "key")


def test_each_nodes_free_resources_are_known(ray_cluster: None) -> None:
    assert ray_internals.available_resources_per_node()[node_id()].keys() >= {"CPU", "memory"}


def test_no_node_is_draining_where_none_was_told_to(ray_cluster: None) -> None:
    """tests/chaos drains one."""
    assert ray_internals.draining_nodes() == set()


def test_hosts_being_started_are_those_that_the_autoscaler_has_begun_with(ray_cluster: None) -> None:
    assert ray_internals.hosts_being_started() == set()
    pending = [["192.0.2.1", "worker", STATUS_WAITING_FOR_SSH], ["192.0.2.2", "worker", STATUS_UNINITIALIZED]]
    report = json.dumps({"autoscaler_report": {"pending_nodes": pending}}).encode()
    client = ray_worker.global_worker.gcs_client
    client.internal_kv_put(ray_constants.DEBUG_AUTOSCALING_STATUS.encode(), report, True, None)
    assert ray_internals.hosts_being_started() == {"192.0.2.1"}
    client.internal_kv_del(ray_constants.DEBUG_AUTOSCALING_STATUS.encode(), False, None)


def test_the_autoscaler_reports_pending_nodes_as_address_type_and_status() -> None:
    from ray.autoscaler._private.autoscaler import AutoscalerSummary

    assert "pending_nodes" in AutoscalerSummary.__dataclass_fields__
    assert "List[Tuple[NodeIP, NodeType, NodeStatus]]" in inspect.getsource(AutoscalerSummary)


def test_this_node_says_its_address_and_where_its_logs_are(ray_cluster: None) -> None:
    assert ray_internals.node_address() in {node["NodeManagerAddress"] for node in ray.nodes()}
    assert (ray_internals.session_folder() / "logs" / "raylet.out").exists()


def test_the_owner_of_an_object_has_an_address_for_java(ray_cluster: None) -> None:
    address = ray_internals.owner_of(ray.put("value"))
    assert isinstance(address, bytes)
    assert address


def test_actors_of_another_language_are_called_by_who_may_load_code(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker.global_worker, "_load_code_from_local", False)
    ray_internals.allow_other_languages()
    assert ray_worker.global_worker.load_code_from_local is True


@ray.remote(num_cpus=0)
def fail() -> None:
    raise OSError("no room")


def test_what_a_task_raised_is_its_reason(ray_cluster: None) -> None:
    with pytest.raises(RayError) as caught:
        ray.get(fail.remote())
    assert ray_internals.reason_of(caught.value) == "OSError: no room"


def test_the_reason_of_an_end_without_an_exception_is_one_line(ray_cluster: None) -> None:
    holding = Holder.options(num_cpus=0).remote()
    ray.get(holding.ready.remote())
    ray.kill(holding)
    with pytest.raises(RayError) as caught:
        again_and_again(lambda: ray.get(holding.ready.remote()))
    reason = ray_internals.reason_of(caught.value)
    assert reason
    assert "\n" not in reason


# Jobs


JOIN_AND_SUBMIT = """
import asyncio, sys
from pathlib import Path
import ray
from rayrnn.cluster import connect
from rayrnn.cluster.ray_internals import start_job
with connect(num_cpus=1):
    flag = Path("begun")
    print(asyncio.run(start_job("good", f"touch {flag.absolute()}; sleep 600", flag.exists)))
    print(asyncio.run(start_job("bad", "echo broken; exit 3", lambda: False)))
"""


@pytest.mark.slow
def test_a_job_starts_without_a_dashboard_and_its_end_is_told(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", JOIN_AND_SUBMIT], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    first, rest = ended.stdout.split("\n", maxsplit=1)
    assert first == "None", ended.stderr
    assert "exit code 3" in rest
    assert "broken" in rest


def test_the_job_manager_takes_a_client_and_a_folder_for_logs() -> None:
    assert list(inspect.signature(JobManager.__init__).parameters)[1:3] == ["gcs_client", "logs_dir"]
    assert {status.name for status in ray.job_submission.JobStatus} >= {"RUNNING", "FAILED"}
    assert ray.job_submission.JobStatus.RUNNING == "RUNNING"


# How Ray starts


def test_ray_reads_its_settings_again(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, ray\nfrom rayrnn.cluster.ray_internals import read_settings_again\n"
        "os.environ['RAY_grpc_client_keepalive_time_ms'] = '123456'\nread_settings_again()\n"
        "print(ray._config.grpc_client_keepalive_time_ms())"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "123456"


def test_a_ray_of_this_process_is_told_its_address_and_its_place() -> None:
    assert ray_internals.own_place("/tmp/x").keys() <= {"_node_ip_address", "_temp_dir"}
    assert "_node_ip_address" in inspect.getsource(ray.init)
    assert "_temp_dir" in inspect.getsource(ray.init)


def test_the_loopback_is_kept_where_ray_would_replace_it() -> None:
    with ray_internals.loopback_kept():
        assert ray_services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
    assert ray_services.resolve_ip_for_localhost("192.0.2.1") == "192.0.2.1"
    assert "services.resolve_ip_for_localhost(" in inspect.getsource(ray_worker)


def test_the_hooks_of_ray_start_set_parameters_that_it_has() -> None:
    assert ray_constants.RAY_START_HOOK == "RAY_START_HOOK"
    parameters = RayParams(ray_client_server_port=10001)
    ray_internals.bind_to_loopback(parameters, head=True)
    assert (parameters.node_ip_address, parameters.node_name) == ("127.0.0.1", "127.0.0.1")
    assert parameters.ray_client_server_port is None


def test_what_other_hosts_print_can_be_taken() -> None:
    assert list(inspect.signature(ray_worker.print_to_stdstream).parameters) == ["data", "ignore_prefix"]
    taken: list[str] = []
    with ray_internals.lines_of_others_taken(taken.append):
        ray_worker.print_to_stdstream({"lines": ["one", "two"]}, ignore_prefix=False)
    assert taken == ["one", "two"]


# Ray's cluster launcher


def test_the_launcher_has_a_schema_and_knows_providers() -> None:
    schema = ray_internals.launcher_schema()
    assert {"cluster_name", "provider", "auth", "file_mounts", "setup_commands"} <= schema["properties"].keys()
    assert {"local", "aws", "gcp"} <= set(ray_internals.launcher_providers())


def test_the_launcher_completes_a_cluster_file() -> None:
    complete = ray_internals.complete_launcher_config(LOCAL)
    assert complete["auth"]["ssh_user"] == "ubuntu"
    assert (complete["max_workers"], complete["head_node_type"]) == (1, "local.cluster.node")
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("ray start" in command for command in complete[part])


def test_a_login_is_what_the_launcher_takes_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ray_internals.cloud_login(LOCAL)["ssh_user"] == "ubuntu"


def test_ssh_gets_the_key_first_and_a_time_to_connect() -> None:
    options = ray_internals.ssh_options("/key", timeout=7, ProxyCommand=None)
    assert options[:2] == ("-i", "/key")
    assert {"ConnectTimeout=7s", "BatchMode=yes", "LogLevel=ERROR"} <= set(options)
    assert ray_internals.ssh_options(None, timeout=7)[0] != "-i"
    assert "ProxyCommand=nc" in ray_internals.ssh_options(None, timeout=7, ProxyCommand="nc")
    # the launcher checks no host's key: rayrnn/cluster/host_keys.py knows its calls by this
    assert "StrictHostKeyChecking=no" in ray_internals.ssh_options(None, timeout=7)
    checking = ray_internals.ssh_options(None, timeout=7, StrictHostKeyChecking="yes", UserKnownHostsFile=None)
    assert "StrictHostKeyChecking=yes" in checking
    assert not [option for option in checking if option.startswith("UserKnownHostsFile")]


def test_the_launcher_reads_these_settings_from_the_environment() -> None:
    source = inspect.getsource(autoscaler_constants)
    for name in ("AUTOSCALER_NODE_START_WAIT_S", "AUTOSCALER_UPDATE_INTERVAL_S"):
        assert f'"{name}"' in source
