"""The commands about clusters: up, down, status."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rayrnn.cli.talk import console, say_dimly


def up(
    file: Annotated[
        Path | None, typer.Argument(help="A cluster file for several hosts; without it a cluster on this machine.")
    ] = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="With Ray's dashboard, on this machine only.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs to offer; without it the machine's.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs to offer; without it the machine's.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory to offer, such as 8GB; without it the machine's.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before hosts are touched.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the cluster file.")] = False,
) -> None:
    """Start a Ray cluster: on this machine, or on the hosts of a cluster file."""
    if file is not None:
        _up_hosts(file, yes=yes, dry_run=dry_run)
        return
    from rayrnn.cluster.head import HeadOptions, parse_size, start_head
    from rayrnn.cluster.screen import show_started
    from rayrnn.cluster.status import read_status

    options = HeadOptions(num_cpus=cpus, num_gpus=gpus, memory=parse_size(memory), dashboard=dashboard)
    with console().status("starting Ray on this machine"):
        head, is_new = start_head(options)
        status = read_status(head.address)
    show_started(console(), status, is_new=is_new, ignored=not is_new and options != HeadOptions())


def _up_hosts(file: Path, *, yes: bool, dry_run: bool) -> None:
    from rayrnn.cluster.cluster_file import read_cluster_file
    from rayrnn.cluster.launcher import check_this_machine, launch
    from rayrnn.cluster.screen import show_cluster_file

    cluster = read_cluster_file(file)
    show_cluster_file(console(), cluster)
    check_this_machine(cluster)
    if not dry_run and (yes or typer.confirm("bring it up?", err=True)):
        launch(cluster, say=say_dimly)
        console().print(f"{cluster.name} is up", style="bold green")


def down(
    file: Annotated[
        Path | None, typer.Argument(help="The cluster file of the hosts; without it what `rayrnn up` started here.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before hosts are touched.")] = False,
) -> None:
    """End what `rayrnn up` started, and nothing else."""
    if file is not None:
        _down_hosts(file, yes=yes)
        return
    from rayrnn.cluster.head import stop_head

    with console().status("ending Ray on this machine"):
        was_there = stop_head()
    console().print("rayrnn is down" if was_there else "nothing to end: `rayrnn up` has started nothing here")


def _down_hosts(file: Path, *, yes: bool) -> None:
    from rayrnn.cluster.cluster_file import read_cluster_file
    from rayrnn.cluster.launcher import take_down
    from rayrnn.cluster.screen import show_cluster_file

    cluster = read_cluster_file(file)
    show_cluster_file(console(), cluster)
    if yes or typer.confirm("take it down?", err=True):
        take_down(cluster, say=say_dimly)
        console().print(f"{cluster.name} is down")


def status(
    address: Annotated[
        str | None, typer.Option(help="host:port of a Ray; without it RAY_ADDRESS, or what `rayrnn up` started.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
) -> None:
    """Show what the cluster offers and who uses it; exit code 4 when there is none."""
    from rich.console import Console

    from rayrnn.cluster.screen import show_status
    from rayrnn.cluster.status import read_status

    found = read_status(address)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        show_status(Console(), found)
