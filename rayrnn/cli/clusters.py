"""The commands about clusters: up, down, status, attach, doctor."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayrnn.cli.completion import complete_recipe, complete_yaml
from rayrnn.cli.runs import Trust, show_there
from rayrnn.cli.talk import confirm, console, escape, give, say

if TYPE_CHECKING:
    from rayrnn.cluster.cluster_file import ClusterFile
    from rayrnn.cluster.plan import UpOptions
    from rayrnn.cluster.status import ClusterStatus, LiveRun


AcceptNewHosts = Annotated[
    bool,
    typer.Option(
        "--accept-new-hosts",
        help="Take the SSH keys of hosts that are not known yet for the right ones, and show them.",
    ),
]


def up(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A cluster file for several hosts; without it a cluster on this machine.", autocompletion=complete_yaml
        ),
    ] = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="With Ray's dashboard, on this machine only.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs to offer; without it the machine's.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs to offer; without it the machine's.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory to offer, such as 8GB; without it the machine's.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before hosts are touched.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look at the hosts, and change nothing.")] = False,
    min_workers: Annotated[
        int | None, typer.Option(min=0, help="So many workers are enough: leave out hosts that are not reached.")
    ] = None,
    max_workers: Annotated[int | None, typer.Option(min=0, help="At most so many of the file's workers.")] = None,
    no_restart: Annotated[
        bool, typer.Option("--no-restart", help="Leave a Ray that runs there alone, even with another rayrnn.")
    ] = False,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="The hosts' Python that has rayrnn: nothing is installed there.")
    ] = None,
    accept_new_hosts: AcceptNewHosts = False,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Only print the same cluster for KubeRay, as YAML.")
    ] = False,
) -> None:
    """Start a Ray cluster: on this machine, or on the hosts of a cluster file."""
    if kubernetes:
        _print_manifest(file)
        return
    if file is not None:
        from rayrnn.cluster.plan import UpOptions

        if accept_new_hosts:
            _accept_new_hosts(file)
        _up_hosts(file, UpOptions(python, min_workers, max_workers, no_restart), yes=yes, dry_run=dry_run)
        return
    from rayrnn.cluster.local_head import HeadOptions, start_head, stop_head
    from rayrnn.cluster.show import show_started
    from rayrnn.cluster.status import read_status

    options = HeadOptions(num_cpus=cpus, num_gpus=gpus, memory=_bytes_of(memory), dashboard=dashboard)
    with console().status("starting Ray on this machine"):
        head, is_new = start_head(options)
        try:
            status = read_status(head.address)
        except BaseException:
            if is_new:
                stop_head()  # nobody has heard of it yet
            raise
    show_started(console(), status, is_new=is_new, ignored=not is_new and options != HeadOptions())


def _accept_new_hosts(file: Path) -> None:
    from rayrnn.cluster.cluster_file import read_cluster_file
    from rayrnn.cluster.launcher import check_this_machine
    from rayrnn.cluster.ssh import accept_new_hosts

    cluster = read_cluster_file(file)
    check_this_machine(cluster)
    with console().status("asking the hosts for their keys"):
        accepted = accept_new_hosts(cluster)
    for address, key in accepted:
        say(f"accepted: {address} {key}")


def _bytes_of(memory: str | None) -> int | None:
    from rayrnn.errors import UsageError
    from rayrnn.wording import parse_size

    if memory is None:
        return None
    num_bytes = parse_size(memory)
    if num_bytes is None:
        raise UsageError(f"--memory takes a size such as 8GB or 512MB; this was {memory!r}")
    return num_bytes


def _print_manifest(file: Path | None) -> None:
    from rayrnn.cluster.cluster_file import read_cluster_file
    from rayrnn.cluster.kuberay import manifest
    from rayrnn.errors import UsageError

    if file is None:
        raise UsageError("--kubernetes prints the shape of a cluster file: name one, as `rayrnn up FILE --kubernetes`")
    give(manifest(read_cluster_file(file)), nl=False)


def _up_hosts(file: Path, options: "UpOptions", *, yes: bool, dry_run: bool) -> None:
    from rayrnn.cluster.bring_up import bring_up
    from rayrnn.cluster.cluster_file import read_cluster_file
    from rayrnn.cluster.holding import held
    from rayrnn.cluster.launcher import check_this_machine
    from rayrnn.cluster.plan import plan_up
    from rayrnn.cluster.show import show_cluster_file, show_plan, show_verification

    cluster = read_cluster_file(file)
    show_cluster_file(console(), cluster)
    check_this_machine(cluster)
    with held(cluster) if not dry_run else nullcontext():
        with console().status("looking at the hosts"):
            planned = plan_up(cluster, options)
        show_plan(console(), planned)
        planned.refuse()
        if not dry_run and confirm("bring it up?", yes=yes):
            with console().status("bringing the hosts up") as status:
                verification = bring_up(planned, say=lambda line: status.update(escape(line.strip()[:90])))
            show_verification(console(), cluster, verification)


def down(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The cluster file of the hosts; without it what `rayrnn up` started here.",
            autocompletion=complete_yaml,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also where it is in use.")] = False,
) -> None:
    """End what `rayrnn up` started, and nothing else; runs write a checkpoint first."""
    if file is not None:
        _down_hosts(file, yes=yes)
        return
    from rayrnn.cluster.ending import stop_runs, users_of
    from rayrnn.cluster.local_head import running_head, stop_head

    head = running_head()
    users = users_of(head.address if head else None)
    if users:
        jobs = [job.job for job in users.jobs]
        if not _see_off(users, lambda: stop_runs(users.address, jobs), yes=yes):
            raise _nothing_ended()
    with console().status("ending Ray on this machine"):
        was_there = stop_head()
    console().print("rayrnn is down" if was_there else "nothing to end: `rayrnn up` has started nothing here")


def _nothing_ended() -> typer.Exit:
    say("nothing was ended")
    return typer.Exit(1)


def _down_hosts(file: Path, *, yes: bool) -> None:
    from rayrnn.cluster.bring_up import take_down
    from rayrnn.cluster.cluster_file import read_cluster_file
    from rayrnn.cluster.holding import held
    from rayrnn.cluster.show import show_cluster_file

    cluster = read_cluster_file(file)
    show_cluster_file(console(), cluster)
    with held(cluster):
        if not _may_end(cluster, yes=yes):
            raise _nothing_ended()
        with console().status("taking the hosts down") as status:
            ended = take_down(cluster, say=lambda line: status.update(escape(line.strip()[:90])))
    where = f": ended on {', '.join(ended)}" if ended else ""
    console().print(f"{cluster.name} is down{where}")


def _may_end(cluster: "ClusterFile", *, yes: bool) -> bool:
    from rayrnn.cluster.ending import stop_runs_there
    from rayrnn.cluster.ssh import shell_of_head

    users = _users_of_hosts(cluster)
    if users is None:
        return confirm("take it down?", yes=yes)
    return _see_off(users, lambda: stop_runs_there(shell_of_head(cluster), cluster.name), yes=yes)


def _users_of_hosts(cluster: "ClusterFile") -> "ClusterStatus | None":
    """Who uses it, as far as the head can say that: it may be down, or have another rayrnn or none."""
    from rayrnn.cluster.ending import users_there
    from rayrnn.cluster.ssh import Unreachable, shell_of_head
    from rayrnn.errors import ClusterError

    try:
        with console().status("looking who uses it"):
            return users_there(shell_of_head(cluster), cluster.name)
    except Unreachable:
        return None  # `take_down` names it
    except ClusterError:
        say("note: who uses the cluster is not known: its head has no rayrnn that could say it")
        return None


def _see_off(users: "ClusterStatus", stop: "Callable[[], tuple[LiveRun, ...]]", *, yes: bool) -> bool:
    """Have those who use a cluster know that it ends, if the user wants that; whether it is to end."""
    from rayrnn.cluster.ending import PATIENCE
    from rayrnn.cluster.show import show_users

    show_users(console(), users)
    if not confirm("end it all the same?", yes=yes):
        return False
    with console().status("waiting for the runs to finish their round and write a checkpoint"):
        left = stop()
    for run in left:
        say(f"note: {run.run} has not ended within {PATIENCE:g} s; it can go on from its newest checkpoint")
    return True


def attach(file: Annotated[Path, typer.Argument(help="The cluster file.", autocompletion=complete_yaml)]) -> None:
    """Open a shell on the cluster's head, where rayrnn and Ray find the cluster: `ray status` works."""
    from rayrnn.cluster.cluster_file import read_cluster_file
    from rayrnn.cluster.ssh import shell_of_head

    cluster = read_cluster_file(file)
    shell_of_head(cluster).enter(cluster.name)


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A cluster file: look at its hosts; without it at this machine.", autocompletion=complete_yaml
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="What is to be trained, for the CPUs that it needs.", autocompletion=complete_recipe),
    ] = None,
    python: Annotated[str | None, typer.Option(metavar="PATH", help="The hosts' Python that has rayrnn.")] = None,
    accept_new_hosts: AcceptNewHosts = False,
    trust: Trust = False,
) -> None:
    """Check that everything is there for rayrnn to work, and name what is not with its fix."""
    from rayrnn.cluster.doctor import diagnose
    from rayrnn.cluster.show import hosts_table, show_findings
    from rayrnn.errors import ClusterError
    from rayrnn.recipe import load_recipe
    from rayrnn.runs.layout import is_stored

    wanted = load_recipe(recipe, [], trusted=trust or not is_stored(recipe)) if recipe else None
    if accept_new_hosts and file is not None:
        _accept_new_hosts(file)
    with console().status("looking"):
        found = diagnose(file, python=python, recipe=wanted)
    console(stderr=False).print(hosts_table(found.hosts), highlight=False)
    for line in found.versions:
        console(stderr=False).print(line, highlight=False)
    show_findings(console(), [finding for finding in found.findings if finding.tolerable])
    if found.faults:
        raise ClusterError("\n  ".join(["this has to be mended:", *map(str, found.faults)]))
    console().print("rayrnn can work here", style="green")


def status(
    file: Annotated[
        Path | None,
        typer.Argument(help="The cluster file of hosts, for their cluster and its runs.", autocompletion=complete_yaml),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="host:port of a Ray; without it RAY_ADDRESS, or what `rayrnn up` started.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
) -> None:
    """Show what the cluster offers and who uses it; exit code 4 when there is none."""
    if file is not None:
        show_there(file, as_json=as_json)
        return
    from rayrnn.cluster.show import show_status
    from rayrnn.cluster.status import read_status

    found = read_status(address)
    if as_json:
        give(json.dumps(found.to_json()))
    else:
        show_status(console(stderr=False), found)
