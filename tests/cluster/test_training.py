"""Training from the laptop on hosts that share nothing: the run comes home, whatever dies on the way."""

import json
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from rayrnn.runs.checkpoints import newest_checkpoint, round_of
from tests.chaos.workers import workers_among
from tests.cluster.bed import Bed, Host
from tests.cluster.disk import ROOT

pytestmark = pytest.mark.slow

CLUSTER = """
cluster_name: bed
provider: {type: local, head_ip: 192.0.2.10, worker_ips: [192.0.2.11, 192.0.2.12]}
auth: {ssh_user: ubuntu, ssh_private_key: ~/.ssh/id_ed25519}
"""
RECIPE = """
name: words
data: {path: words.txt, length: 40, held_out: 0.1}
model: {hidden: 24, layers: 1}
training: {batch_size: 4, truncate: 20, evaluate_every: 50, checkpoint_every: 20}
averaging: {workers: 2, frequency: 2, rounds: %d, patience: 5}
"""
TRAIN = ("rayrnn", "train", "words.yaml", "--cluster", "cluster.yaml")


@pytest.fixture(scope="module")
def shared_bed(bed_is_possible: None) -> Iterator[Bed]:
    with Bed(with_rayrnn=True) as bed:
        token = secrets.token_hex(32)
        for host in (bed.laptop, *bed.hosts):
            (host.home / ".ray").mkdir(mode=0o700)
            (host.home / ".ray" / "auth_token").write_text(token)
            (host.home / ".ray" / "auth_token").chmod(0o600)
        (bed.laptop.home / "cluster.yaml").write_text(CLUSTER)
        (bed.laptop.home / "words.txt").write_text("abcdefgh ijkl mnop " * 6000)
        for host in bed.hosts:
            start_ray(bed, host)
        yield bed


@pytest.fixture(autouse=True)
def no_run(bed: Bed) -> Iterator[None]:
    """Nothing of one test is there in the next."""
    yield
    shutil.rmtree(bed.laptop.home / "runs", ignore_errors=True)


def start_ray(bed: Bed, host: Host) -> None:
    head = bed.hosts[0]
    place = (
        ("--head", "--port=6379", "--include-dashboard=false") if host is head else (f"--address={head.address}:6379",)
    )
    command = (
        "python3",
        "-m",
        "ray.scripts.scripts",
        "start",
        *place,
        f"--node-ip-address={host.address}",
        "--num-cpus=2",
    )
    ended = host.run(*command, environment={"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}, timeout=120)
    assert ended.returncode == 0, ended.stderr


class Talk:
    """A command on the laptop, and what it says while it runs."""

    def __init__(self, bed: Bed, *command: str) -> None:
        pipe = subprocess.PIPE
        self._process = bed.laptop.popen(*command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        self.said = ""
        self.printed = ""
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_talk, self._read_data)]
        for reader in self._readers:
            reader.start()

    def wait_for(self, words: str, seconds: float = 150) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.said:
            assert time.monotonic() < deadline, self.said
            assert self._process.poll() is None or words in self.said, self.said
            time.sleep(0.1)

    def interrupt(self) -> None:
        for process in psutil.Process(self._process.pid).children(recursive=True):
            if any(word.endswith("bin/rayrnn") for word in process.cmdline()):
                process.send_signal(signal.SIGINT)

    def end(self, seconds: float = 240) -> int:
        self._process.wait(seconds)
        for reader in self._readers:
            reader.join(10)
        return self._process.returncode

    def _read_talk(self) -> None:
        for line in self._process.stderr:
            self.said += line

    def _read_data(self) -> None:
        self.printed = self._process.stdout.read()


def write_recipe(bed: Bed, rounds: int) -> None:
    (bed.laptop.home / "words.yaml").write_text(RECIPE % rounds)


def last_round(bed: Bed) -> int:
    """Of the newest checkpoint on the laptop."""
    checkpoint, damages = newest_checkpoint(bed.laptop.home / "runs" / "words" / "checkpoints")
    assert not damages
    return 0 if checkpoint is None else checkpoint.progress["round"]


def wait_for_checkpoint(bed: Bed, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while last_round(bed) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_run_travels_to_the_cluster_and_comes_home(bed: Bed) -> None:
    write_recipe(bed, 60)
    ended = bed.laptop.run(*TRAIN, "--json", timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert "sending 1 local file, 114 kB" in ended.stderr
    assert json.loads(ended.stdout)["rounds"] == 60
    run = bed.laptop.home / "runs" / "words"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 60
    assert last_round(bed) == 60
    assert "path: words.txt" in (run / "recipe.yaml").read_text()
    wrote = bed.laptop.run("rayrnn", "generate", "runs/words", "--prime", "abc", "--length", "5")
    assert wrote.returncode == 0, wrote.stderr
    for host in bed.hosts:
        for folder in ("runs", "kept"):
            assert not list((host.home / ".rayrnn" / folder).glob("*")), host.name


def test_a_network_of_ones_own_travels_with_the_run(bed: Bed) -> None:
    home = bed.laptop.home
    shutil.copy(ROOT / "examples" / "minimal_gru.py", home)
    recipe = (RECIPE % 40).replace(
        "{hidden: 24, layers: 1}", "{network: 'minimal_gru:MinimalGRU', options: {hidden: 24}}"
    )
    (home / "words.yaml").write_text(recipe.replace("workers: 2", "workers: 3"))
    ended = bed.laptop.run(*TRAIN, "--json", timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert "minimal_gru:MinimalGRU, " in ended.stderr
    lines = (home / "runs" / "words" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 40
    assert {len(json.loads(line)["workers"]) for line in lines} == {3}  # more than one host has room for
    refused = bed.laptop.run("rayrnn", "generate", "runs/words", "--length", "5")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--trust" in refused.stderr
    wrote = bed.laptop.run("rayrnn", "generate", "runs/words", "--length", "5", "--trust")
    assert wrote.returncode == 0, wrote.stderr


def test_a_network_that_the_hosts_lack_is_told_with_its_module(bed: Bed) -> None:
    recipe = (RECIPE % 40).replace("{hidden: 24, layers: 1}", "{network: 'nowhere.net:Net'}")
    (bed.laptop.home / "words.yaml").write_text(recipe)
    ended = bed.laptop.run(*TRAIN, timeout=240)
    assert ended.returncode == 2, ended.stderr
    assert f"there is no module nowhere on {bed.hosts[0].name}" in ended.stderr
    (job,) = (bed.hosts[0].home / ".rayrnn" / "runs").iterdir()  # what failed stays there, to be looked at
    shutil.rmtree(job)


def test_a_detached_run_is_found_left_alone_and_stopped(bed: Bed) -> None:
    write_recipe(bed, 20000)
    ended = bed.laptop.run(*TRAIN, "--detach", timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert "rayrnn logs runs/words" in ended.stderr
    status = bed.laptop.run("rayrnn", "status", "cluster.yaml", "--json", timeout=120)
    assert status.returncode == 0, status.stderr
    (run,) = json.loads(status.stdout)["runs"]
    assert (run["out"], run["state"]) == ("runs/words", "running")
    again = bed.laptop.run(*TRAIN, "--resume", timeout=120)
    assert again.returncode == 4
    assert "is being trained already" in again.stderr
    logs = Talk(bed, "rayrnn", "logs", "runs/words")
    logs.wait_for("/20000 loss")
    logs.interrupt()
    assert logs.end() == 0
    assert "the run goes on" in logs.said
    (job,) = (bed.hosts[0].home / ".rayrnn" / "runs").iterdir()
    assert bed.hosts[0].run("sh", "-c", f"kill -TERM $(cat {bed.home}/.rayrnn/runs/{job.name}/pid)").returncode == 0
    logs = Talk(bed, "rayrnn", "logs", "runs/words")
    assert logs.end() == 130, logs.said
    assert last_round(bed) > 0
    shutil.rmtree(job)


def test_ctrl_c_brings_a_checkpoint_home_and_resume_goes_on(bed: Bed) -> None:
    write_recipe(bed, 3000)
    training = Talk(bed, *TRAIN)
    training.wait_for("/3000 loss")
    training.interrupt()
    assert training.end() == 130, training.said
    assert "--resume --cluster cluster.yaml" in training.said.splitlines()[-1]
    stopped = last_round(bed)
    assert 0 < stopped < 3000
    write_recipe(bed, stopped + 40)
    resumed = bed.laptop.run(*TRAIN, "--resume", "--json", timeout=240)
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on after round {stopped:,}" in resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == stopped + 40


def test_a_link_that_breaks_is_mended_and_nothing_is_missed(bed: Bed) -> None:
    write_recipe(bed, 2000)
    training = Talk(bed, *TRAIN, "--json")
    training.wait_for("/2000 loss")
    bed.laptop.cut()
    training.wait_for("is broken; the run goes on there")
    bed.laptop.mend()
    assert training.end() == 0, training.said
    assert json.loads(training.printed)["rounds"] == 2000
    rounds = [
        json.loads(line)["round"] for line in (bed.laptop.home / "runs/words/metrics.jsonl").read_text().splitlines()
    ]
    assert rounds == list(range(1, 2001))


def test_a_host_that_dies_costs_its_worker_and_not_the_run(bed: Bed) -> None:
    write_recipe(bed, 3000)
    training = Talk(bed, *TRAIN, "--json")
    training.wait_for("/3000 loss")
    lost = next(host for host in bed.hosts[1:] if workers_among(host.processes()))
    lost.kill()
    training.wait_for("was lost (killed")
    lost.start()
    start_ray(bed, lost)
    assert training.end(400) == 0, training.said
    assert json.loads(training.printed)["rounds"] == 3000


def test_the_workers_of_a_host_that_is_drained_leave_and_nobody_dies(bed: Bed) -> None:
    write_recipe(bed, 3000)
    training = Talk(bed, *TRAIN, "--json")
    training.wait_for("/3000 loss")
    leaving = next(host for host in bed.hosts[1:] if workers_among(host.processes()))
    drain(bed, leaving)
    training.wait_for("was lost (drained: its node leaves the cluster) in round")
    assert training.end(400) == 0, training.said
    leaving.kill()
    leaving.start()
    start_ray(bed, leaving)
    assert json.loads(training.printed)["rounds"] == 3000
    assert "was lost (killed" not in training.said


def drain(bed: Bed, host: Host) -> None:
    status = json.loads(bed.laptop.run("rayrnn", "status", "cluster.yaml", "--json").stdout)
    (node,) = [node["id"] for node in status["cluster"]["nodes"] if node["alive"] and node["address"] == host.address]
    why = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test")
    command = ("python3", "-m", "ray.scripts.scripts", "drain-node", "--address", f"{bed.hosts[0].address}:6379")
    ended = bed.hosts[0].run(*command, "--node-id", node, *why, environment={"RAY_AUTH_MODE": "token"})
    assert ended.returncode == 0, ended.stderr


def test_a_host_that_is_cut_off_for_a_while_is_waited_for_no_longer_than_patience_and_comes_back(bed: Bed) -> None:
    write_recipe(bed, 6000)
    training = Talk(bed, *TRAIN, "--json")
    training.wait_for("/6000 loss")
    cut = next(host for host in bed.hosts[1:] if workers_among(host.processes()))
    cut.cut()
    training.wait_for("went on after")
    cut.mend()
    training.wait_for("takes part from round")
    assert training.end(400) == 0, training.said
    assert json.loads(training.printed)["rounds"] == 6000
    if not any(process.name() == "raylet" for process in cut.processes()):  # the head had given it up
        start_ray(bed, cut)


def test_hosts_whose_names_mean_the_loopback_train(bed: Bed) -> None:
    write_recipe(bed, 60)
    with bed.own_names_mean_loopback():
        ended = bed.laptop.run(*TRAIN, "--json", timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["rounds"] == 60


def test_a_run_goes_on_after_its_head_died_with_everything_on_it(bed: Bed) -> None:
    """The laptop had left: the checkpoint comes from the host that kept it."""
    write_recipe(bed, 20000)
    ended = bed.laptop.run(*TRAIN, "--detach", timeout=240)
    assert ended.returncode == 0, ended.stderr
    deadline = time.monotonic() + 120
    while not kept_rounds(bed):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    head = bed.hosts[0]
    for host in bed.hosts:
        host.kill()
    shutil.rmtree(head.home / ".rayrnn")
    for host in bed.hosts:
        host.start()
        start_ray(bed, host)
    (bed.laptop.home / "words.yaml").write_text(RECIPE % 20000)
    gone = bed.laptop.run("rayrnn", "logs", "runs/words", timeout=120)
    assert gone.returncode != 0
    kept = max(kept_rounds(bed))
    write_recipe(bed, kept + 40)
    resumed = bed.laptop.run(*TRAIN, "--resume", "--json", timeout=240)
    assert resumed.returncode == 0, resumed.stderr
    assert "which kept it" in resumed.stderr, resumed.stderr
    assert f"going on after round {kept:,}" in resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == kept + 40


def kept_rounds(bed: Bed) -> list[int]:
    """Of the checkpoints of this run that other hosts than the head have."""
    job = json.loads((bed.laptop.home / "runs/words/cluster.json").read_text())["job"]
    return [
        round_of(path.name)
        for host in bed.hosts[1:]
        for path in host.home.glob(f".rayrnn/kept/{job}/checkpoints/round-*")
    ]
