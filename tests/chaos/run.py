"""Trains one recipe under faults, in a process and a Ray of its own: `python -m tests.chaos.run JOB`."""

import json
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from rayrnn.cluster.environment import prepare_environment
from rayrnn.cluster.ray_internals import loopback_kept
from rayrnn.recipe import validate_recipe
from rayrnn.runs.directory import Run
from rayrnn.training.driver import train
from rayrnn.training.summary import Summary
from tests.chaos.workers import workers_among

#: rounds that a change of the cluster is left alone
SETTLE_ROUNDS = 20
#: between the announcement that a node goes and the moment it does, at most
NOTICE_SECONDS = 120
#: of a store that is to be full
STORE_BYTES = 80_000_000


def main(job: Path) -> None:
    values = json.loads(job.read_text())
    prepare_environment()
    environment = {
        "worker_process_setup_hook": "tests.chaos.faults.install",
        "env_vars": values["variables"],
    }
    cluster = None
    with loopback_kept():
        if values["nodes"]:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        ray.init(
            **({"object_store_memory": STORE_BYTES} if values["full"] else {}),
            address=cluster.address if cluster else "local",
            log_to_driver=False,
            configure_logging=False,
            runtime_env=environment,
            **({} if cluster else {"num_cpus": 4, "include_dashboard": False}),
        )
    run = Run(Path(values["out"]))
    if values["full"]:
        threading.Thread(target=fill_store, args=(run,), daemon=True).start()
    if values["kill"]:
        threading.Thread(target=kill_workers, args=(values["kill"], run), daemon=True).start()
    console = Console(stderr=True, width=160)
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train, validate_recipe(values["recipe"]), out=values["out"], console=console)
        if cluster:
            change(cluster, values["nodes"], run, training)  # Ray adds nodes in the main thread only
        print(json.dumps(training.result().to_json()))
    ray.shutdown()
    if cluster:
        cluster.shutdown()


def change(cluster: Cluster, steps: list[str], run: Run, training: "Future[Summary]") -> None:
    """Add a node of one CPU, remove or drain one, each time the rounds' members are those that the nodes can hold."""
    nodes: list[Any] = []
    for step in steps:
        wait_for(run, training, members=1 + len(nodes))
        if training.done():
            return
        if step == "add":
            with loopback_kept():
                nodes.append(cluster.add_node(num_cpus=1))
        elif step == "drain":
            drain(cluster, nodes[-1].node_id)
            wait_for(run, training, members=len(nodes))
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)


def drain(cluster: Cluster, node: str) -> None:
    """Announce that a node will be taken away, as a cloud does with what it lends cheaply."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--address={cluster.address}"]
    reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=a test"]
    notice = [f"--node-id={node}", f"--deadline-remaining-seconds={NOTICE_SECONDS}"]
    subprocess.run([*command, *reason, *notice], check=True, capture_output=True)


def fill_store(run: Run) -> None:
    """More than the store holds, from the first round on, and never let go."""
    while not run.metrics():
        time.sleep(0.02)
    held = [ray.put(np.zeros(STORE_BYTES // 2, np.uint8)) for _ in range(4)]
    while held:
        time.sleep(60)


def kill_workers(plan: dict[str, float], run: Run) -> None:
    """A random worker of those that are there, again and again from the first round on."""
    chance = random.Random(0)
    while not run.metrics():
        time.sleep(0.1)
    begin = time.monotonic()
    while time.monotonic() < begin + plan["until"]:
        time.sleep(plan["every"])
        if workers := workers_among(psutil.Process().children(recursive=True)):
            chance.choice(workers).kill()


def wait_for(run: Run, training: "Future[Summary]", members: int) -> None:
    while not training.done():
        newest = run.metrics()[-SETTLE_ROUNDS:]
        if len(newest) == SETTLE_ROUNDS and all(len(line["workers"]) == members for line in newest):
            return
        time.sleep(0.5)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
