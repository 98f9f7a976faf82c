"""The commands about runs on a cluster of other hosts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayrnn.cli.completion import complete_run
from rayrnn.cli.talk import console, give
from rayrnn.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from rayrnn.recipe import Recipe
    from rayrnn.training.summary import Summary

Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="The run names code that is not rayrnn's (a network, task or source): import and run it."
    ),
]


def train_there(
    recipe: "Recipe",
    file: Path,
    *,
    out: str | None,
    resume: bool,
    detach: bool,
    address: str | None,
    as_json: bool,
) -> None:
    """`rayrnn train --cluster`."""
    if address is not None:
        raise UsageError("give --cluster (a file) or --address (host:port), one of the two")
    from rayrnn.remote.submit import train_on_cluster

    _print_summary(train_on_cluster(recipe, file, out=out, resume=resume, detach=detach), as_json=as_json)


def logs(
    run: Annotated[
        str,
        typer.Argument(
            help="The run directory, or the name of a run that lies on the cluster.", autocompletion=complete_run
        ),
    ],
    cluster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The cluster file; without it the one this machine began the run with."),
    ] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print how it ended as one JSON object.")] = False,
) -> None:
    """Show what a run on a cluster has said, follow it to its end and fetch its directory; Ctrl-C leaves it alone."""
    from rayrnn.remote.submit import follow_run

    _print_summary(follow_run(run, cluster, trust=trust), as_json=as_json)


def show_there(file: Path, *, as_json: bool) -> None:
    """`rayrnn status FILE`."""
    from rayrnn.cluster.cluster_file import read_cluster_file
    from rayrnn.cluster.show import show_runs
    from rayrnn.cluster.ssh import find_head
    from rayrnn.remote.follow import runs_of

    answer = runs_of(find_head(read_cluster_file(file)))
    if "cluster" in answer:
        answer["cluster"]["origin"] = str(file)
    if as_json:
        give(json.dumps(answer))
    else:
        show_runs(console(stderr=False), answer, file)
    if "problem" in answer:
        raise ClusterError(answer["problem"])


def _print_summary(summary: "Summary | None", *, as_json: bool) -> None:
    """A run that was left alone has none yet."""
    if as_json and summary is not None:
        give(json.dumps(summary.to_json()))
