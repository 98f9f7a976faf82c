"""Who uses a cluster that is to end, and having its runs write their checkpoints first.

On another host: `python -m rayrnn.cluster.ending users | stop NAME` prints one line of JSON about the cluster NAME.
"""

import json
import shlex
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rayrnn.cluster.environment import prepare_environment
from rayrnn.cluster.on_host.facts import folder_of
from rayrnn.cluster.ray_internals import read_tables
from rayrnn.cluster.sessions import is_head_alive
from rayrnn.cluster.ssh import Shell
from rayrnn.cluster.status import ClusterStatus, LiveRun, ask_to_stop, live_run, read_runs, read_status
from rayrnn.errors import ClusterError

#: seconds for a run to finish its round and write its checkpoint
PATIENCE = 120.0
LOOK_SECONDS = 0.5


def users_of(address: str | None) -> ClusterStatus | None:
    """What uses the cluster at this address; None where nobody does, or no head answers any more."""
    if address is None:
        return None
    try:
        status = read_status(address)
    except ClusterError:
        return None
    return status if status.jobs else None


def stop_runs(address: str, jobs: Iterable[str], *, patience: float = PATIENCE) -> tuple[LiveRun, ...]:
    """Ask the runs of these jobs to end, and wait until they have written what they leave.

    Returns:
        those that have not ended within `patience` seconds.
    """
    prepare_environment()
    jobs, deadline = list(jobs), time.monotonic() + patience
    ask_to_stop(address, jobs)
    while (left := _living(address, jobs)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return left


def _living(address: str, jobs: list[str]) -> tuple[LiveRun, ...]:
    """Those of these runs whose drivers live and have not ended their work."""
    alive = {str(job["JobID"]) for job in read_tables(address).jobs if not job["IsDead"]}
    return read_runs(address, [job for job in jobs if job in alive])


def users_there(head: Shell, cluster: str) -> ClusterStatus | None:
    """The same of a cluster whose head is another host.

    Raises:
        Unreachable: there is no way to the head.
        ClusterError: what is installed there cannot say it.
    """
    answer = head.answer(f"exec python3 -P -m rayrnn.cluster.ending users {shlex.quote(cluster)}")
    try:
        return None if answer is None else ClusterStatus.from_json(answer)
    except (LookupError, TypeError):
        raise ClusterError(f"{head.address} answers as another rayrnn would") from None


def stop_runs_there(head: Shell, cluster: str) -> tuple[LiveRun, ...]:
    """The same on another host.

    Raises:
        ClusterError: it cannot be done.
    """
    answer = head.answer(f"exec python3 -P -m rayrnn.cluster.ending stop {shlex.quote(cluster)}")
    return tuple(map(live_run, answer))


def main(verb: str, cluster: str) -> None:
    """Print who uses this host's Ray of that cluster; or stop its runs, and print those that go on."""
    address = _address(folder_of(cluster))
    users = users_of(address)
    if verb == "users":
        print(json.dumps(users.to_json() if users else None))
    else:
        left = stop_runs(users.address, [job.job for job in users.jobs]) if users else ()
        print(json.dumps([asdict(run) for run in left]))


def _address(folder: str) -> str | None:
    with suppress(OSError):
        return (Path(folder) / "ray/ray_current_cluster").read_text().strip() if is_head_alive(folder) else None
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
