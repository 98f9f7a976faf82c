"""Trains one recipe under faults, in a process and a Ray of its own: `python -m tests.chaos.run JOB`."""

import json
import sys
from pathlib import Path

import ray
from rich.console import Console

from rayrnn.cluster.environment import loopback_kept, prepare_environment
from rayrnn.recipe import validate_recipe
from rayrnn.training.driver import train


def main(job: Path) -> None:
    values = json.loads(job.read_text())
    prepare_environment()
    with loopback_kept():
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"worker_process_setup_hook": "tests.chaos.faults.install", "env_vars": values["variables"]},
        )
    outcome = train(validate_recipe(values["recipe"]), out=values["out"], console=Console(stderr=True, width=160))
    print(json.dumps(outcome.to_json()))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
