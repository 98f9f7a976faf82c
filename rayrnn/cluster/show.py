"""What the commands about clusters show: tables of hosts, runs and findings."""

import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rayrnn.cluster.bring_up import Verification
from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.inspection import Finding, Host
from rayrnn.cluster.plan import UpPlan
from rayrnn.cluster.status import ClusterStatus, Job, LiveRun, Node, Usage
from rayrnn.wording import command_line, counted, duration, gibibytes

#: columns of numbers
RIGHT = (
    "CPUs",
    "GPUs",
    "memory, GiB",
    "objects, GiB",
    "for",
    "memory",
    "/dev/shm",
    "disk",
    "there and back",
    "bandwidth",
)
#: more pairs than that are summed up
MOST_PAIRS = 15
COLOURS = {"running": "green", "finished": "green", "interrupted": "yellow", "failed": "red", "lost": "red"}


def show_started(console: Console, status: ClusterStatus, *, is_new: bool, ignored: bool = False) -> None:
    """Say where the cluster of `rayrnn up` is, what it offers and what to type next.

    Args:
        is_new: this `up` started it.
        ignored: options were given that an earlier `up` had already decided.
    """
    headline = Text("rayrnn is up" if is_new else "rayrnn is up already", style="bold green")
    if ignored:
        headline.append("; for other options `rayrnn down` first", style="not bold yellow")
    facts = Table.grid(padding=(0, 2))
    facts.add_row("  address", f"{status.address} (this machine only, guarded by a token)")
    facts.add_row("  offers", _offer(status))
    facts.add_row("  dashboard", status.dashboard or "off; `rayrnn up --dashboard` has it")
    facts.add_row("  next", "rayrnn train python, rayrnn status, rayrnn down")
    console.print(headline)
    console.print(facts, highlight=False)


def show_cluster_file(console: Console, file: ClusterFile) -> None:
    """Say which hosts a cluster file is about."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("  file", Text(f"{file.path} fits Ray's schema"))
    facts.add_row("  provider", f"{file.provider}, as {file.ssh_user}" if file.ssh_user else file.provider)
    if file.hosts:
        facts.add_row("  head", file.hosts[0])
    facts.add_row("  workers", ", ".join(file.hosts[1:]) or f"at most {file.max_workers}")
    console.print(Text(f"cluster {file.name}", style="bold"))
    console.print(facts, highlight=False)


def show_status(console: Console, status: ClusterStatus) -> None:
    """Print hosts, what they offer and what of it is taken, and who took it."""
    headline = Text.assemble((status.address, "bold"), f" ({status.origin})")
    if status.dashboard:
        headline.append(f"  dashboard {status.dashboard}")
    users = _jobs(status.jobs) if status.jobs else Text("nobody uses it", style="dim")
    console.print(Group(headline, "", _nodes(status.nodes), "", users), highlight=False)
    if status.runs:
        console.print(Group("", _runs(status.runs)), highlight=False)


def show_users(console: Console, status: ClusterStatus) -> None:
    """Say who uses a cluster that is to end, and what becomes of them."""
    console.print(Text("the cluster is in use", style="bold yellow"))
    console.print(_jobs(status.jobs), highlight=False)
    if status.runs:
        console.print(Group("", _runs(status.runs)), highlight=False)
        console.print("runs finish their round and write a checkpoint first")
    console.print("programs that `rayrnn up` has not started are not ended; their Ray is gone then")


def _nodes(nodes: tuple[Node, ...]) -> Table:
    shown = table("host", "state", "CPUs", "GPUs", "memory, GiB", "objects, GiB")
    for node in nodes:
        state = Text("alive", style="green") if node.alive else Text("gone", style="red")
        shown.add_row(
            node.address if node.address == node.host_name else f"{node.address} {node.host_name}",
            state,
            _count(node.cpus),
            _count(node.gpus),
            _gibibytes(node.memory),
            _gibibytes(node.object_store),
        )
    return shown


def _jobs(jobs: tuple[Job, ...]) -> Table:
    shown = table("user", "for", "holds", "command")
    for job in jobs:
        shown.add_row(f"process {job.process}", duration(time.time() - job.started), _holds(job), _short(job.command))
    return shown


def _runs(runs: tuple[LiveRun, ...]) -> Table:
    """Who takes part in each, by number."""
    shown = table("run", "round", "workers")
    for run in runs:
        members = ", ".join(map(str, run.members)) or "none"
        shown.add_row(run.run, _rounds(run.round, run.rounds), f"{members} ({len(run.members)} of {run.workers})")
    return shown


def _rounds(learned: int, planned: int) -> str:
    """A run that goes by minutes has no number of rounds."""
    return f"{learned:,} of {planned:,}" if planned else f"{learned:,}"


def _holds(job: Job) -> str:
    """Its training workers, and how many actors beside (Ray's own helpers among them)."""
    workers = job.actors.get("RayTrainWorker", 0)
    others = sum(job.actors.values()) - workers
    held = [counted(workers, "worker")] * bool(workers) + [counted(others, "other actor")] * bool(others)
    return ", ".join(held) or "-"


def _short(command: str) -> str:
    """The command as it was typed: without Python and the folder of the program."""
    words = command.split()
    if len(words) > 1 and Path(words[0]).name.startswith("python"):
        words = words[1:]
    return " ".join([Path(words[0]).name, *words[1:]]) if words else command


def table(*headers: str) -> Table:
    """An empty table in this command line's style; numbers stand on the right."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for header in headers:
        numeric = header in RIGHT
        shown.add_column(header, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    return shown


def _offer(status: ClusterStatus) -> str:
    alive = [node for node in status.nodes if node.alive]
    gpus = sum(node.gpus.total for node in alive)
    memory = gibibytes(sum(node.memory.total for node in alive))
    cpus = sum(node.cpus.total for node in alive)
    return f"{cpus:g} CPUs, {f'{gpus:g} GPUs' if gpus else 'no GPU'}, {memory} GiB memory"


def _count(usage: Usage) -> str:
    return f"{usage.used:g} of {usage.total:g}" if usage.total else "-"


def _gibibytes(usage: Usage) -> str:
    return f"{gibibytes(usage.used)} of {gibibytes(usage.total)}" if usage.total else "-"


def show_plan(console: Console, plan: UpPlan) -> None:
    """Print all hosts side by side, and what should be otherwise on them."""
    if not plan.hosts:
        return
    console.print(hosts_table(plan.hosts), highlight=False)
    show_findings(console, [finding for finding in plan.findings if finding not in plan.faults])
    if plan.left_out:
        console.print(Text(f"left out: {', '.join(plan.left_out)}", style="yellow"), highlight=False)


def show_findings(console: Console, findings: list[Finding]) -> None:
    """Print what works in spite of itself."""
    for finding in findings:
        console.print(Text.assemble(("note: ", "yellow"), str(finding)), highlight=False, soft_wrap=True)


def hosts_table(hosts: list[Host]) -> Table:
    """One line a host."""
    shown = table("host", "name", "Python", "rayrnn", "Ray", "CPUs", "GPUs", "memory", "/dev/shm", "disk", "clock")
    shown.padding = (0, 1, 0, 0)
    for host in hosts:
        if host.unreachable:
            shown.add_row(host.address, Text("not reached", style="red"), *[""] * 9)
            continue
        facts = host.facts
        packages = (facts["target"] or {}).get("packages", {})
        shown.add_row(
            host.address,
            facts["host_name"],
            facts["python"],
            packages.get("rayrnn", "-"),
            packages.get("ray", "-"),
            str(facts["cpus"]),
            str(facts["gpus"]) if facts["gpus"] else "-",
            *(f"{gibibytes(size, 0)}G" for size in (facts["memory"], facts["shared_memory"])),
            f"{gibibytes(min(facts['disk'].values()), 0)}G",
            f"{host.clock:+.0f} s" if host.clock else "same",
        )
    return shown


def show_verification(console: Console, file: ClusterFile, verification: Verification) -> None:
    """Say that a cluster is up, how fast its hosts talk, and what to type next."""
    console.print(Text(f"{file.name} is up{' already' if verification.was_up else ''}", style="bold green"))
    facts = Table.grid(padding=(0, 2))
    facts.add_row("  hosts", f"{len(verification.joined)}: {', '.join(verification.joined)}")
    facts.add_row("  computing", ", ".join(sorted(set(verification.computes.values()))))
    train, down = (
        command_line("rayrnn", "train", "RECIPE", "--cluster", file.path),
        command_line("rayrnn", "down", file.path),
    )
    console.print(facts, highlight=False)
    console.print(Text(f"  next       {train}, rayrnn status, {down}"), soft_wrap=True, highlight=False)
    if verification.pairs:
        console.print(_pairs(verification), highlight=False)


def _pairs(verification: Verification) -> Table:
    slowest_first = sorted(verification.pairs, key=lambda pair: pair[3])
    shown = table("from", "to", "there and back", "bandwidth")
    for first, second, latency, bandwidth in slowest_first[:MOST_PAIRS]:
        rate = f"{bandwidth / 1e9:.2f} Gbit/s" if bandwidth >= 1e9 else f"{bandwidth / 1e6:.0f} Mbit/s"
        shown.add_row(first, second, f"{latency * 1000:.2f} ms", rate)
    if len(slowest_first) > MOST_PAIRS:
        shown.caption = f"the slowest {MOST_PAIRS} of {len(slowest_first)} pairs"
    return shown


def show_runs(console: Console, answer: dict[str, Any], file: Path) -> None:
    """Print the cluster, then every run: its state, how far it came, and how to get at it."""
    if "cluster" in answer:
        show_status(console, ClusterStatus.from_json(answer["cluster"]))
        console.print()
    if not answer["runs"]:
        console.print(Text("no run lies on the head", style="dim"))
        return
    console.print(_table(answer["runs"]), highlight=False)
    console.print(Text(f"rayrnn logs RUN --cluster {file} follows one and fetches it", style="dim"))


def _table(runs: list[dict[str, Any]]) -> Table:
    shown = table("run", "state", "round", "loss", "for")
    for run in runs:
        shown.add_row(
            run["out"],
            Text(run["state"], style=COLOURS[run["state"]]),
            _rounds(run["round"], run["rounds"]),
            "-" if run["loss"] is None else f"{run['loss']:.3f}",
            duration(time.time() - run["started"]),
        )
    return shown
